"""Dropping fields leaves the others as they are."""

import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.data.fields import drop


def test_the_named_fields_go_and_the_others_stay():
    fields = {"x": np.arange(3), "text": np.array(["a", "b", "c"], object)}
    assert list(drop(("text",))(fields, None)) == ["x"]
    assert drop(("text",))(fields, None)["x"] is fields["x"]
    with pytest.raises(ConfigError, match="no field 'texts'; did you mean 'text'"):
        drop(("texts",))(fields, None)
