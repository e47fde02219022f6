"""`ray.data`: libray has no datasets. The module can be imported, for libraries do so whether they use it or not; what
they take from it raises when it is used."""

_NAMES = (
    "Dataset DatasetContext DataContext Datasource GroupedData from_arrow from_arrow_refs from_blocks from_dask "
    "from_huggingface from_items from_modin from_numpy from_numpy_refs from_pandas from_pandas_refs from_spark "
    "from_tf from_torch range range_tensor read_binary_files read_csv read_datasource read_images read_json "
    "read_numpy read_parquet read_sql read_text"
).split()


def _make(name):
    def __init__(self, *args, **kwargs):
        raise NotImplementedError(
            f"libray has no ray.data.{name}: keep blocks as references (ray.put), and map over them with tasks, "
            "ray.wait or ray.util.map_unordered"
        )

    return type(name, (), {"__init__": __init__, "__module__": __name__, "__doc__": "Not there."})


for _name in _NAMES:
    globals()[_name] = _make(_name)
__all__ = list(_NAMES)
