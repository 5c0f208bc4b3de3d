"""Weights: a model's files, their tensors, and a check that a network takes everything it computes with from them.

Libraries draw a tensor that a file lacks at random, without an error: two loads of one file then differ. So every loader goes
through here: ``fill`` for networks that take all of their tensors from the file, ``pretrained`` with ``need`` for those of
transformers, which may have parts that no picture passes.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w.errors import UsageError

if TYPE_CHECKING:  # importing it costs seconds, and most queries only need a file's header
    import torch

WEIGHTS = "model.safetensors"
_PICKLE = "pytorch_model.bin"
_PLAIN = re.compile(r"[\w.-]+")  # a name that leads nowhere: no folder, no URL
_LFS = b"version https://git-lfs"
# limits for a config.json: far above anything published, and built in seconds
_LAYERS = re.compile(r"(layers?|depths?|blocks?|stages?)$")
_MOST_LAYERS, _MOST, _MOST_SIZES = 1000, 1 << 20, 1024
_NO_SIZE = re.compile(r"seed|steps?$|ids?$|date|time|param|flops|version|epoch|samples?$")
_MOST_MISSING = 100_000_000  # numbers that a network may have beyond eight times those of its file (a text tower, a decoder)
_MASK_TOKEN = "mask_token"  # stands for hidden patches, of which an encoder has none


def files_of(folder: Path, option: str) -> list[Path]:
    """A folder's weight files: model.safetensors, otherwise the shards of its index, otherwise the same of pytorch_model.bin.

    Others are ignored. Raises UsageError if there are none, or an index names something other than a file of the folder.
    """
    for name in (WEIGHTS, _PICKLE):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index, option).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise UsageError(f"{option}: {index} has no 'weight_map' from tensors to files")
            for tensor, shard in shards.items():
                if not isinstance(shard, str) or not _PLAIN.fullmatch(shard) or not shard.endswith(Path(name).suffix):
                    raise UsageError(
                        f"{option}: {index} names {shard!r} for {tensor}: no {Path(name).suffix} file of its folder"
                    )
                if not (folder / shard).is_file():
                    raise UsageError(f"{option}: {index} names {shard}, which is missing in {folder}")
            return [folder / shard for shard in sorted(set(shards.values()))]
    raise UsageError(f"{option}: no {WEIGHTS} in {folder}, nor {WEIGHTS}.index.json or {_PICKLE}")


def read_json(path: Path, option: str) -> dict:
    """Raises UsageError for a file that is missing or is not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UsageError(f"{option}: {path.name} is missing in {path.parent}") from e
    except (OSError, ValueError, RecursionError) as e:
        raise UsageError(f"{option}: {path} is not valid JSON") from e
    if not isinstance(found, dict):
        raise UsageError(f"{option}: {path} is not a JSON object but a {type(found).__name__}")
    if path.name.endswith("config.json"):
        _check_sizes(found, "", f"{option}: {path}")
    return found


def _check_sizes(value: object, name: str, where: str) -> None:
    """Raises UsageError for a number that would make a constructor take minutes, or all memory, before it fails."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_sizes(inner, key, where)
    elif isinstance(value, list):
        if len(value) > _MOST_SIZES and not all(isinstance(v, str) for v in value):
            raise UsageError(f"{where}: {name} has {len(value):,} entries: no network is like that")
        for inner in value:
            _check_sizes(inner, name, where)
    elif isinstance(value, int | float) and not _NO_SIZE.search(name):
        most = _MOST_LAYERS if _LAYERS.search(name) else _MOST
        if abs(value) > most:
            raise UsageError(f"{where}: {name}={value:g}: no network is that large")


def built(make: Callable, tensors: dict[str, "torch.Tensor"], where: str) -> "torch.nn.Module":
    """The network that ``make`` builds from a config.json. Raises UsageError, before it takes memory, if it is far larger than
    its file."""
    import torch

    try:
        with torch.device("meta"):
            network = make()
    except Exception:  # it computes with its tensors, or cannot be built: the real one tells
        return make()
    check_total(network, tensors, where)
    return make()


def check_total(network: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], where: str) -> None:
    own, have = dict(network.state_dict()), sum(v.numel() for v in tensors.values())
    if sum(v.numel() for v in own.values()) > 8 * have + _MOST_MISSING:
        name = max(own, key=lambda n: own[n].numel())
        raise UsageError(f"{where} holds {have:,} numbers, and config.json asks for {_size(own[name].shape)} in {name!r} alone")


def shapes(files: Sequence[Path], option: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, from the headers alone (a pickle is read whole). Raises UsageError as ``read`` does."""
    if any(f.suffix != ".safetensors" for f in files):
        return {name: tuple(v.shape) for name, v in read(files, option).items()}
    from safetensors import safe_open

    found = {}
    for file in files:
        with _sentences(file, option), safe_open(file, "np") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.offset_keys()}
    return found


def read(files: Sequence[Path], option: str) -> dict[str, "torch.Tensor"]:
    """The tensors of the files, by name; no code in them is run.

    Raises UsageError for a file that is empty, truncated, a pointer of Git LFS or not a table of tensors, or repeats a tensor.
    """
    import torch
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        with _sentences(file, option):
            if file.suffix == ".safetensors":
                # not memory-mapped: writing to the file would change the network, or crash its process
                with safe_open(file, "pt", backend="pread") as opened:
                    found = {name: opened.get_tensor(name) for name in opened.offset_keys()}
            else:
                found = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
            what = "nothing" if not found else f"a {type(found).__name__}"
            if isinstance(found, dict) and found:
                what = next(f"a {type(v).__name__} at {k!r}" for k, v in found.items() if not isinstance(v, torch.Tensor))
            raise UsageError(f"{option}: {file} holds {what} instead of tensors by name")
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise UsageError(f"{option}: {file} holds {twice[0]!r}, which another of its shards has too")
        tensors |= found
    return tensors


def check_safe(file: Path, option: str) -> None:
    """Raises UsageError for a pickle that holds more than tensors and plain values."""
    import torch

    with _sentences(file, option):
        torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def _sentences(file: Path, option: str) -> Iterator[None]:
    """Turns any error of a weights reader into a UsageError that names the file and the fault."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_LFS))
    except OSError as e:
        raise UsageError(f"{option}: {file} cannot be read: {e.strerror}") from e
    if not start:
        raise UsageError(f"{option}: {file} is empty")
    if start == _LFS:
        raise UsageError(f"{option}: {file} is a pointer of Git LFS, not the weights: run 'git lfs pull'")
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:  # safetensors, zip, pickle and torch raise many classes for truncated or foreign files
        raise UsageError(f"{option}: {file} holds no tensors that can be read: {line(e)}") from e


def fill(
    network: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], option: str, unused: Iterable[str] = ()
) -> "torch.nn.Module":
    """The network, in eval mode, with all of its tensors from ``tensors``. ``unused``: prefixes of names that it does not use.
    ``option``: prefix of the messages, option and file.

    Raises UsageError naming the first tensor that is missing, left over, of another shape, or not finite. Counters and
    positions that a network computes itself may be missing or left over: they are integers, or non-persistent buffers.
    """
    own, computed = network.state_dict(), {n for n, _ in network.named_buffers()}
    missing = [n for n, v in own.items() if n not in tensors and v.is_floating_point()]
    if missing:
        raise UsageError(f"{option} lacks {_some(missing)}: is it another architecture's?")
    left = [n for n, v in tensors.items() if n not in own and n not in computed and v.is_floating_point()]
    left = [n for n in left if not any(n.startswith(u) for u in unused)]
    if left:
        raise UsageError(f"{option} has {_some(left)}, which the network does not: is it another architecture's?")
    taken = {n: v for n, v in tensors.items() if n in own}
    for name, value in taken.items():
        if value.shape != own[name].shape:
            raise UsageError(f"{option}: {name} is {_size(value.shape)}, and the network takes {_size(own[name].shape)}")
    network.load_state_dict(taken, strict=False)
    check_finite(network, option)
    return network.eval()


def check_finite(network: "torch.nn.Module", option: str, drawn: Collection[str] = ()) -> None:
    """Raises UsageError naming the network's first tensor with NaN or infinity, except those ``drawn``."""
    import torch

    for name, value in network.state_dict().items():
        if (
            name not in drawn
            and value.is_floating_point()
            and value.numel()
            and not all(torch.isfinite(v) for v in value.aminmax())
        ):
            raise UsageError(f"{option}: {name} holds NaN or infinity")


def pretrained(
    auto: Any, settings: Any, tensors: dict[str, "torch.Tensor"], where: str, new: Callable | None = None, **local: Any
) -> tuple["torch.nn.Module", list[str]]:
    """(model, names that ``tensors`` lack) of an Auto class of transformers, in float32 and eval mode, from nothing else.

    ``new``: given (shape there, shape wanted), whether that tensor may be reinitialised. Missing ones are too: see ``need``.
    ``where``: prefix of the messages, option and file. Raises UsageError naming a tensor of another shape, left over, or not
    finite.
    """
    import torch
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of missing tensors is repeated here, or irrelevant
    logging.disable_progress_bar()
    try:
        with torch.device("meta"):
            empty = auto.from_config(settings, **local)
        check_total(empty, tensors, where)
        kind = type(empty)
        model, told = kind.from_pretrained(
            None,
            config=settings,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # reported below, with the names
            output_loading_info=True,
        )
    except UsageError:
        raise
    except Exception as e:  # a stranger's config.json may raise anything in a library's constructors
        raise UsageError(f"{where} and its config.json are not what transformers builds as {auto.__name__}: {line(e)}") from e
    finally:
        logging.set_verbosity(shown)
    other = [(n, *s) for n, *s in sorted(told["mismatched_keys"]) if not (new and new(*s))]
    if other:
        name, there, wanted = other[0]
        raise UsageError(f"{where}: {name} is {_size(there)}, and config.json makes it {_size(wanted)}")
    left = sorted(n for n in told["unexpected_keys"] if _belongs(n, model) and _matters(tensors, n))
    if left:
        raise UsageError(f"{where} has {_some(left)}, which the network of config.json does not")
    check_finite(model, where, told["missing_keys"])  # what is missing may be uninitialised memory
    return model.eval(), sorted(told["missing_keys"])


def _matters(tensors: dict, name: str) -> bool:
    value = tensors.get(name, next((v for k, v in tensors.items() if k.endswith(f".{name}") or name.endswith(f".{k}")), None))
    return value is None or value.is_floating_point()


def _belongs(name: str, model) -> bool:
    """Whether a left-over tensor belongs to a part that the network has. Parts that it lacks altogether (a classifier, a
    decoder, a text tower) do not matter."""
    prefix = f"{model.base_model_prefix}."
    if not hasattr(model, model.base_model_prefix):  # it is that part of a model with a classifier
        name = name.removeprefix(prefix)
    if name.rpartition(".")[2] == _MASK_TOKEN or name in {n for n, _ in model.named_buffers()}:
        return False
    root, known = "", dict(model.named_modules())
    while len(known[root]._modules) == 1 and not known[root]._parameters:  # a mere wrapper
        root = f"{root}.{next(iter(known[root]._modules))}".lstrip(".")
    parts = name.split(".")
    left = max((".".join(parts[:i]) for i in range(len(parts)) if ".".join(parts[:i]) in known), key=len)
    depth = left.count(".") + bool(left) - root.count(".") - bool(root)
    if depth != 1:
        return depth > 1
    return bool(known[left]._parameters) or name.removeprefix(f"{left}.")[0].isdigit()  # an additional layer


def need(network: "torch.nn.Module", missing: Sequence[str], answers: Callable, where: str) -> None:
    """Raises UsageError if the result of ``answers()`` (tensors or arrays) depends on a tensor of ``missing``, or on chance.

    These are set to random values and to NaN (which shows effects lost in rounding; samplers of images take it for -1), neither
    of which may change a bit of it. Tensors that no answer depends on become 0.
    """
    import numpy as np
    import torch

    values = network.state_dict(keep_vars=True)
    drawn = {n: values[n] for n in missing if n in values and values[n].is_floating_point()}
    seen, generator = [], torch.Generator().manual_seed(0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for seed in range(2):
            for value in drawn.values():
                value.copy_(torch.randn(value.shape, generator=generator) if seed == 0 else torch.full_like(value, torch.nan))
            torch.manual_seed(seed)
            try:
                seen.append([np.array(v) for v in answers()])
            except Exception as e:  # a model of text or of video may raise anything for a picture
                raise UsageError(f"{where}: the network does not take a picture: {line(e)}") from e
        for value in drawn.values():
            value.zero_()
    if not all(np.array_equal(a, b, equal_nan=not drawn) for a, b in zip(*seen)):
        if not drawn:
            raise UsageError(f"{where}: the network gives other answers each time: it draws at random")
        raise UsageError(f"{where} lacks {_some(list(drawn))}, which the network computes with")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


def _size(shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def line(error: Exception) -> str:
    """A library's error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
