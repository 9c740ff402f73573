"""The builders of time series read their carriers' formats, and split by time or by recording."""

import gzip
import lzma
import pickle

import numpy as np
import pytest
from test_builders_arrays import pack, prepared

from jaxlab.core.errors import DataError
from jaxlab.data.builders import elecdemand, etth1, skab

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def carrier(tmp_path):
    (tmp_path / "carrier").mkdir()
    return tmp_path / "carrier"


def make_recording(name, size):
    start = np.datetime64("2020-03-09T10:14:33") + 1000 * skab.RECORDINGS.index(name)
    header = ["datetime", *skab.SERIES, *([] if name == skab.NORMAL else ["anomaly", "changepoint"])]
    marks = [] if name == skab.NORMAL else ["1.0", "0.0"]
    lines = [[str(start + i).replace("T", " "), *[f"{i}.{j}" for j in range(8)], *marks] for i in range(size)]
    return "\n".join(";".join(line) for line in [header, *lines]).encode() + b"\n"


def test_skab_splits_by_recording_in_the_order_of_time(carrier, monkeypatch):
    files = {f"data/{name}": make_recording(name, 3 + i % 4) for i, name in enumerate(skab.RECORDINGS)}
    pack(carrier / skab.ARCHIVE, {"LICENSE": b"", **files})
    splits = prepared(skab, carrier, monkeypatch)
    groups = [set(rows["group"].tolist()) for rows in splits.values()]
    assert [len(found) for found in groups] == [22, 7, 6]
    assert set.union(*groups) == set(range(35))
    start = np.datetime64("2020-03-09T10:14:33").astype(int)
    for rows in splits.values():
        np.testing.assert_array_equal(rows["label"], rows["group"] != skab.RECORDINGS.index(skab.NORMAL))
        np.testing.assert_array_equal(rows["time"], start + 1000 * rows["group"] + rows["step"])
        np.testing.assert_allclose(rows["series"], rows["step"][:, None] + np.arange(8) / 10, rtol=1e-6)
        assert (np.diff(rows["group"]) >= 0).all()


def test_skab_wants_its_columns_and_all_recordings(carrier, monkeypatch):
    with pytest.raises(DataError, match=r"other/1\.csv has the columns"):
        skab.read_recording(make_recording(skab.NORMAL, 2), "other/1.csv")
    pack(carrier / skab.ARCHIVE, {f"data/{skab.NORMAL}": make_recording(skab.NORMAL, 2)})
    with pytest.raises(DataError, match=r"lacks other/1\.csv"):
        prepared(skab, carrier, monkeypatch)


def test_elecdemand_reads_a_pickle_without_running_it(carrier, monkeypatch):
    demand_N, temperature_N, workday_N = GENERATOR.normal(size=100), GENERATOR.normal(size=100), np.arange(100) % 2
    blocks = [np.stack([demand_N, temperature_N]), np.stack([np.arange(100), workday_N])]
    rest = {"columns": np.array(["rownames", "Demand"], object), "places": np.arange(4)}  # as pandas keeps beside them
    (carrier / elecdemand.FILE).write_bytes(lzma.compress(pickle.dumps({"blocks": blocks, **rest}, protocol=5)))
    splits = prepared(elecdemand, carrier, monkeypatch)
    assert [len(rows["time"]) for rows in splits.values()] == [60, 20, 20]
    every = {field: np.concatenate([rows[field] for rows in splits.values()]) for field in splits["train"]}
    np.testing.assert_allclose(every["demand"], demand_N, rtol=1e-6)
    np.testing.assert_allclose(every["temperature"], temperature_N, rtol=1e-6)
    np.testing.assert_array_equal(every["workday"], workday_N)
    start = np.datetime64("2014-01-01T00:00:00").astype(int)
    np.testing.assert_array_equal(every["time"], start + 1800 * np.arange(100))


class Trap:
    """Unpickling this fails the test."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_elecdemand_refuses_other_pickles(tmp_path):
    path = tmp_path / elecdemand.FILE
    blocks = [np.zeros(10).tobytes(), np.zeros(20).tobytes()]
    for content in (pickle.dumps(blocks), pickle.dumps(Trap()), b"\xff", b""):
        path.write_bytes(lzma.compress(content))
        with pytest.raises(DataError, match=elecdemand.FILE):
            elecdemand.read_frame(path)
    path.write_bytes(b"not compressed")
    with pytest.raises(DataError, match=elecdemand.FILE):
        elecdemand.read_frame(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_etth1_is_split_by_time_and_its_end_left_out(carrier, monkeypatch, compressed):
    monkeypatch.setattr(etth1, "MONTH", 6)
    start = np.datetime64("2016-07-01T00:00:00")
    times = [str(start + np.timedelta64(i, "h")).replace("T", " ") for i in range(130)]
    lines = [f"{time},{i},1,2,3,4,5,-6.5" for i, time in enumerate(times)]
    content = "\n".join([",".join(["date", *etth1.SERIES]), *lines]).encode() + b"\n"
    name, content = ("ETTh1.csv.gz", gzip.compress(content)) if compressed else ("ETTh1.csv", content)
    (carrier / name).write_bytes(content)
    splits = prepared(etth1, carrier, monkeypatch)
    assert [len(rows["time"]) for rows in splits.values()] == [72, 24, 24]
    every = {field: np.concatenate([rows[field] for rows in splits.values()]) for field in splits["train"]}
    np.testing.assert_array_equal(every["time"], start.astype(int) + 3600 * np.arange(120))
    np.testing.assert_array_equal(every["series"], [[i, 1, 2, 3, 4, 5, -6.5] for i in range(120)])
