"""Has the top level only maths, and do modules import only from rooms below them?"""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = {name: Path(find_spec(name).origin).parent for name in ("numpy_gpt", "torch_gpt")}
LEAVES = {"errors", "number"}  # every module may import them
MATHS = {"config", "params", "ops", "model", "adamw", "noise", "language_model", "checks", "record"}
MATHS |= {"classifier", "masked_loss", "lora"}
ROOMS = {"generate", "train", "evaluate", "text", "checkpoint", "download", "fast", "system", "storyteller", "serve"}
ROOMS |= {"corpus", "finetune"}

# the imports allowed to a top-level module or a room, besides the leaves and modules of the same room
MAY_IMPORT = {
    **{name: set() for name in LEAVES | {"config", "ops", "noise", "system"}},
    "params": {"config"},
    "fast": {"ops"},
    "model": {"ops", "params", "fast"},
    "classifier": {"model", "ops", "params"},
    "masked_loss": {"ops"},
    "lora": {"params"},
    "checks": {"config", "params"},
    "adamw": {"params", "fast"},
    "language_model": {"model", "params", "checks", "noise", "ops", "fast"},
    "record": set(),
    "text": {"params", "system", "fast", "noise"},
    "checkpoint": {"config", "params", "checks", "lora", "system", "fast", "text", "download"},
    "download": {"config", "system", "fast", "checkpoint"},
    "generate": MATHS | {"fast", "system", "text", "checkpoint"},
    "evaluate": MATHS | {"fast", "system", "text", "checkpoint", "generate"},
    "corpus": {"system", "text", "checkpoint", "__init__"},  # __init__ has the version
    "train": MATHS | ROOMS,
    "finetune": MATHS | ROOMS,
    "storyteller": MATHS | ROOMS,
    "serve": MATHS | {"fast", "system", "text", "checkpoint", "generate", "__init__"},  # __init__ has the version
}
# functions whose signatures differ between the packages, each with its reason
DIFFERENT = {
    ("model.py", "gpt2"): "save is an option of the reference, run and head are options of the twin",
    ("noise.py", "uniform"): "the reference draws for given token ids, the twin for all ids of a batch",
    ("generate/sampling.py", "sample"): "the reference takes one row of logits, the twin a batch",
    ("train/__main__.py", "main"): "only the reference's takes the arguments of a command line",
    ("finetune/__main__.py", "main"): "only the reference's takes a backend",
}


def name_of(path):
    parts = path.relative_to(PACKAGES["numpy_gpt"].parent).with_suffix("").parts
    return ".".join(parts)


def imported(path):
    """Yield the modules of numpy_gpt that a file imports, at any place in it"""
    package = name_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield from file_of([*source, alias.name]) or file_of(source)


def file_of(parts):
    place = PACKAGES["numpy_gpt"].parent.joinpath(*parts)
    if parts[:1] != ["numpy_gpt"]:
        return []
    return [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()][:1]


def room_of(path):
    return path.relative_to(PACKAGES["numpy_gpt"]).parts[0].removesuffix(".py")


FILES = sorted(PACKAGES["numpy_gpt"].rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_top_level_has_only_maths_and_rooms(package):
    top = {path.name for path in PACKAGES[package].iterdir() if path.name != "__pycache__"}
    allowed = {f"{name}.py" for name in MATHS | LEAVES} | {"__init__.py", "__main__.py", "py.typed"} | ROOMS
    assert top <= allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_imports_only_allowed_rooms(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    found = {room_of(other) for other in imported(path)} - LEAVES - {room}
    assert found <= MAY_IMPORT[room]


def test_imports_have_no_cycle():
    graph = {path: set(imported(path)) - {path, PACKAGES["numpy_gpt"] / "__init__.py"} for path in FILES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as e:
        pytest.fail(" -> ".join(map(name_of, e.args[1])))
    assert len(order) == len(FILES)


def functions(path):
    """Return {name: (parameters, number of defaults)} of the functions and methods of a file"""
    found = {}
    for node in ast.parse(path.read_text()).body:
        methods = node.body if isinstance(node, ast.ClassDef) else [node]
        for f in (n for n in methods if isinstance(n, ast.FunctionDef)):
            name = f.name if f is node else f"{node.name}.{f.name}"
            found[name] = [arg.arg for arg in f.args.args], len(f.args.defaults)
    return found


SHARED = [path.relative_to(PACKAGES["numpy_gpt"]) for path in FILES]
SHARED = [path for path in SHARED if (PACKAGES["torch_gpt"] / path).is_file()]


@pytest.mark.parametrize("path", SHARED, ids=str)
def test_files_at_the_same_path_have_functions_of_the_same_signature(path):
    # The twin's functions may have more parameters, such as device, if they have defaults
    ours, theirs = (functions(PACKAGES[package] / path) for package in PACKAGES)
    for name in ours.keys() & theirs.keys():
        if (str(path), name) not in DIFFERENT:
            (parameters, _), (more, defaults) = ours[name], theirs[name]
            extra = [p for p in more if p not in parameters]
            assert [p for p in more if p in parameters] == parameters, name
            assert set(extra) <= set(more[len(more) - defaults :]), name


MATHS_OF_THE_TWIN = ["ops.py", "model.py", "language_model.py", "classifier.py", "masked_loss.py", "lora.py"]
MATHS_OF_THE_TWIN += ["finetune/classification.py", "finetune/instruction.py"]


@pytest.mark.parametrize("path", MATHS_OF_THE_TWIN)
def test_the_twin_has_every_function_of_the_maths_without_backwards(path):
    ours, theirs = (functions(PACKAGES[package] / path) for package in PACKAGES)
    helpers = {"rows", "sum_rows"}  # of backwards
    if "mean_loss" in theirs:  # autograd computes its gradients
        helpers.add("loss_and_grads")
    assert {name for name in ours if not name.endswith("_backward")} - helpers <= theirs.keys()


def test_numpy_gpt_never_imports_torch():
    for path in FILES:
        assert "import torch" not in path.read_text(), path
        assert "from torch" not in path.read_text(), path
