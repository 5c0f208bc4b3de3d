"""The SAM family: segment-anything's own code, transformers and ultralytics behind one interface.

A photo is encoded once, whatever the number of prompts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments.masked import Masked, Prompt
from w2w.garments.masks import stability
from w2w.models import hub, weights

if TYPE_CHECKING:
    import torch


def _by_points(prompts: Sequence[Prompt]) -> list[tuple[list[int], np.ndarray, np.ndarray | None]]:
    """Groups of prompts with the same number of points: their positions, boxes (N, 4), points (N, P, 2) or None.

    Padding points (SAM's label -1, transformers' -10) are tokens too, and would make a mask depend on its neighbours.
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
    """Raises Reject if any value is not finite."""
    if not (np.isfinite(logits_NHW).all() and np.isfinite(scores_N).all()):
        raise Reject(RejectCode.NOT_FINITE, "the segmenter gave NaN or infinity")
    return [Masked(logits > 0, float(score), stability(logits)) for logits, score in zip(logits_NHW, scores_N)]


class SegmentAnything:
    """segment-anything's own code (Kirillov et al. 2023) with a checkpoint of vit_b, vit_l or vit_h, known by its shapes."""

    needs_box = True

    def __init__(self, file: Path, device: "torch.device", dtype: str, name: str):
        import torch
        from segment_anything import SamPredictor

        option = f"segmenter.name={name}"
        state = weights.read([file], option)
        try:
            model = sam_from(state)
        except Exception as e:  # a tensor is missing or has another shape
            raise UsageError(f"{option}: {file} is not a checkpoint of segment-anything: {weights.line(e)}") from e
        weights.fill(model, state, f"{option}: {file}")
        self._torch, self._device, self._dtype = torch, device, getattr(torch, dtype)
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


def sam_from(state: dict) -> "torch.nn.Module":
    """The network that fits a checkpoint's shapes, without its weights: vit_b, vit_l, vit_h, or a smaller one of the same kind.

    Derives the sizes that ``segment_anything.build_sam`` has in a table. Raises KeyError for any other file.
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
    return Sam(
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


class Transformers:
    """SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3's tracker in transformers (AutoModelForMaskGeneration)."""

    needs_box = True

    def __init__(self, folder: Path, device: "torch.device", dtype: str, name: str):
        import torch
        from transformers import AutoModelForMaskGeneration

        option = f"segmenter.name={name}"
        self._processor = hub.processor("AutoProcessor", folder, option)
        settings = hub.settings(folder, weights.read_json(folder / "config.json", option), option)
        files = weights.files_of(folder, option)
        where = f"{option}: {files[0]}"
        model, missing = weights.pretrained(AutoModelForMaskGeneration, settings, weights.read(files, option), where)
        self._torch, self._device, self._dtype = torch, torch.device("cpu"), torch.float32
        self._model = model
        if missing:
            weights.need(model, missing, self.probed, where)
        self._device, self._dtype = device, getattr(torch, dtype)
        self._model = model.to(device)

    def probed(self) -> list[np.ndarray]:
        """The network's output for a picture on the CPU, prompted with a box and a point and with a box alone."""
        picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
        prompts = [Prompt((4, 4, 40, 60), ((20, 30),)), Prompt((10, 10, 40, 40))]
        return [part for _, logits, scores in self._answers(picture, prompts) for part in (logits, scores)]

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        return _in_order({i: m for members, *found in self._answers(image, prompts) for i, m in zip(members, _masked(*found))})

    def _answers(self, image: np.ndarray, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Positions of prompts, their logits (N, H, W) and scores (N,)."""
        torch = self._torch
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
                yield members, logits[:, 0].numpy(), out.iou_scores.float().cpu().numpy()[0, :, 0]

    def _encode(self, pixels) -> dict:
        encoded = self._model.get_image_embeddings(pixels)
        if isinstance(encoded, tuple):  # SAM-HQ
            return {"image_embeddings": encoded[0], "intermediate_embeddings": list(encoded[1])}
        return {"image_embeddings": encoded}


class Ultralytics:
    """SAM, MobileSAM or SAM 2 in ultralytics, which knows a model by its file's name (mobile_sam.pt, sam2.1_b.pt, sam_b.pt)."""

    needs_box = True

    def __init__(self, file: Path, device: "torch.device", dtype: str, name: str):
        import os

        import torch

        os.environ.setdefault("YOLO_OFFLINE", "true")
        option = f"segmenter.name={name}"
        weights.check_safe(file, option)  # ultralytics would run a pickle's code
        from ultralytics.models.sam import Predictor, SAM2Predictor

        kind = SAM2Predictor if "sam2" in file.name.lower() else Predictor
        half = dtype != "float32" and device.type == "cuda"
        settings = {"model": str(file), "device": str(device), "half": half, "conf": 0.0, "imgsz": 1024, "verbose": False}
        try:
            self._predictor = kind(overrides=settings | {"save": False, "task": "segment", "mode": "predict"})
            self._predictor.setup_model(model=None, verbose=False)
            self._predictor.setup_source(np.zeros((64, 64, 3), np.uint8))  # fixes the input's size
        except Exception as e:  # raised by its strict loaders for another model's tensors
            raise UsageError(f"{option}: {file}: {weights.line(e)}") from e
        weights.check_finite(self._predictor.model, f"{option}: {file}")
        self._predictor.model.mask_threshold = 0.0
        self._torch = torch

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        predictor, torch = self._predictor, self._torch
        found: dict[int, Masked] = {}
        pixels = None
        try:
            for members, boxes_N4, points_NP2 in _by_points(prompts):
                if pixels is None:
                    # what its set_image does, without a data loader, and keeping the pixels
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
