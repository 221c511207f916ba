"""The commands of the model's side: train and judge one, use it, and all of it on dolls."""
