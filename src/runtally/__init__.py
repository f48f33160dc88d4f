"""The history of workflow runs, answered instantly however many runs there are."""
