"""Pictures of a run and of what it predicts, as matplotlib figures; each module draws one kind of result.

They know arrays and names, nothing of run directories. Figures are made without pyplot, so that nothing global is
touched and no display is needed. Usage: ``style.save(ranking.roc(positive_NQ, score_NQ, names), path)``.
"""
