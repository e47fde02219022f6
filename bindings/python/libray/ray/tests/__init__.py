"""`ray.tests`: only what tests of programs for Ray take from there."""
