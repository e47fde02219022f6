"""`ray.autoscaler`: a cluster of libray has one node, so there is nothing to scale; `sdk` has what programs call."""
