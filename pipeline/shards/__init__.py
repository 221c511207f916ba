"""How things lie on disk: sealed rows, and tars beside them, of which nothing is half there."""
