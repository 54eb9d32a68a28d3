"""Run what ``remote=True`` sends as nnsight's server does: in a process that has nnsight, and not this package.

``python server.py FOLDER PAYLOAD RESULT`` loads the model of a folder with nnsight's own class.
"""

import sys


class Absent:
    """Finds nothing for packages that a server does not have."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in (
            "mechvrp",
            "jaxtyping",
            "xarray",
            "rich",
            "psutil",
            "plotly",
            "pandas",
        ):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(folder, payload, result):
    import torch
    from nnsight.modeling.transformers import TransformersModel
    from nnsight.schema.request import RequestModel
    from nnsight.tracing import tracer as tracing

    model = TransformersModel(folder, task="image-text-to-text", dispatch=True)
    sys.meta_path.insert(0, Absent())  # now that transformers has looked for what it can do without
    with open(payload, "rb") as file:
        blob = file.read()
    tracer = RequestModel.deserialize(blob, model._remoteable_persistent_objects())
    tracing.inc()
    tracer.execute(tracer.info.code)
    saves = tracing._saves()
    found = {k: v for k, v in tracer.info.frame.f_locals.items() if id(v) in saves}
    assert not any(name.split(".")[0] == "mechvrp" for name in sys.modules)
    torch.save(found, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
