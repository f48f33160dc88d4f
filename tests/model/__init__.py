"""What happens in the model (`tests/test_model.py`): a log, workers, commands and a Redis, in one process."""
