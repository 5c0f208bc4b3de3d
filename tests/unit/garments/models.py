"""Tiny detectors of real architectures with random weights, saved as the hub has them."""

import torch
import transformers as t

LABELS = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")


def save_detector(folder, kind: str, labels=LABELS):
    """Writes config, preprocessor and weights; returns the model and its processor."""
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    detr = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    }  # fmt: skip
    if kind == "conditional_detr":
        resnet = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"])
        config = t.ConditionalDetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=resnet,
            num_queries=12, **detr, **names,
        )  # fmt: skip
        model = t.ConditionalDetrForObjectDetection(config)
        processor = t.ConditionalDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    elif kind == "yolos":
        config = t.YolosConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=[64, 96],
            patch_size=16, num_detection_tokens=12, use_mid_position_embeddings=False, **names,
        )  # fmt: skip
        model, processor = (
            t.YolosForObjectDetection(config),
            t.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        )
    else:
        backbone = t.RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = t.RTDetrConfig(
            backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[16, 16, 16], encoder_ffn_dim=16,
            encoder_attention_heads=2, d_model=16, num_queries=12, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
            decoder_layers=1, decoder_attention_heads=2, decoder_n_points=2, num_denoising=0, feat_strides=[8, 16, 32],
            **names,
        )  # fmt: skip
        model, processor = t.RTDetrForObjectDetection(config), t.RTDetrImageProcessor(size={"height": 64, "width": 64})
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(
                ("position_embeddings", "cls_token", "detection_tokens")
            ):  # transformers leaves some unset: any bytes
                values.normal_(std=0.02)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def save_yolo(file, labels=LABELS):
    """A YOLO11 of the smallest scale with random weights, as ultralytics saves it."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml", task="detect")
    from ultralytics.nn.tasks import DetectionModel

    model.model = DetectionModel("yolo11n.yaml", nc=len(labels), verbose=False)
    model.model.names = dict(enumerate(labels))
    model.model.args = {"imgsz": 96}
    model.ckpt = {}
    torch.save({"model": model.model, "train_args": {"imgsz": 96}, "epoch": -1}, file)


def save_sam(folder, kind: str):
    """A tiny SAM of transformers; returns the model and its processor."""
    torch.manual_seed(0)
    if kind == "sam2":
        backbone = t.HieraDetConfig if hasattr(t, "HieraDetConfig") else t.Sam2HieraDetConfig
        hiera = backbone(
            hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
            window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3], window_positional_embedding_background_size=[4, 4],
        )  # fmt: skip
        vision = t.Sam2VisionConfig(
            backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=16,
        )  # fmt: skip
        prompt = t.Sam2PromptEncoderConfig(hidden_size=16, image_size=64)
        decoder = t.Sam2MaskDecoderConfig(hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16)
        model = t.Sam2Model(t.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
        image = t.Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
        processor = t.Sam2Processor(image, target_size=64)
    else:
        Config, Vision, Prompt, Decoder, Model, Processor = (
            (t.SamConfig, t.SamVisionConfig, t.SamPromptEncoderConfig, t.SamMaskDecoderConfig, t.SamModel, t.SamProcessor)
            if kind == "sam"
            else (
                t.SamHQConfig, t.SamHQVisionConfig, t.SamHQPromptEncoderConfig, t.SamHQMaskDecoderConfig, t.SamHQModel,
                t.SamHQProcessor,
            )
        )  # fmt: skip
        vision = Vision(
            hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16,
            window_size=2, global_attn_indexes=[1], mlp_dim=16, num_pos_feats=8,
        )  # fmt: skip
        prompt = Prompt(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
        more = {"vit_dim": 16} if kind == "sam_hq" else {}
        decoder = Decoder(hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16, **more)
        model = Model(Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
        image = t.SamImageProcessor(
            size={"longest_edge": 64}, pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16}, mask_pad_size={"height": 16, "width": 16},
        )  # fmt: skip
        processor = Processor(image)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(
                ("position_embeddings", "cls_token", "detection_tokens")
            ):  # transformers leaves some unset: any bytes
                values.normal_(std=0.02)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def tiny_sam():
    """segment-anything's own architecture, 64 px, two blocks."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    torch.manual_seed(0)
    return Sam(
        ImageEncoderViT(
            img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, out_chans=32, qkv_bias=True,
            use_rel_pos=True, window_size=3, global_attn_indexes=[1],
        ),
        PromptEncoder(embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=8),
        MaskDecoder(
            transformer_dim=32, transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=8, mlp_dim=40),
            num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=24,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )  # fmt: skip
