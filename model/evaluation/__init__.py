"""How good a model is: every measure, in every setting, beside answers that know nothing."""
