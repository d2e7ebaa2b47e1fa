"""The published formulation gives the published results, so it can stand for them where no golden case is."""

import re

import golden_cases
import pytest

torch = pytest.importorskip("torch")

from benchmarks.published import ARCHS, build, cluster_layers  # noqa: E402

PARAMETERS = {
    "cluenet_micro": "3.02",
    "cluenet_tiny": "5.68",
    "cluenet_small": "15.05",
    "cluenet_base": "30.20",
    "cluenet_cifar": "3.02",
    "fec_small": "5.44",
    "fec_large": "29.26",
    "coc_tiny": "5.28",
    "coc_medium": "28.83",
}


def image(*shape):
    return torch.from_numpy(golden_cases.weights().image(7, shape))


def golden_model(arch, **options):
    """The network `arch` with golden parameters, keeping its index maps."""
    model = build(arch, **options).eval()
    golden_cases.fill(model, "clue" if arch.startswith("cluenet") else arch[:3])
    for layer in cluster_layers(model).values():
        layer.keep_index = True
    return model


@pytest.mark.parametrize("name", golden_cases.cases("coc", "fec", "clue"))
def test_golden_case(name):
    case = golden_cases.load(name)
    model = build(name, num_classes=case.num_classes).eval()
    model.load_state_dict(golden_cases.state_dict(case.shapes, case.kind), strict=True)
    layers = cluster_layers(model)
    for layer in layers.values():
        layer.keep_index = True
    with torch.no_grad():
        case.assert_logits(model(torch.from_numpy(case.input)).numpy())
    assert set(layers) == set(case.index)
    for path, layer in layers.items():
        case.assert_layer(path, layer.last_index.numpy(), float(layer.last_weight.mean()))


@pytest.mark.parametrize(("arch", "millions"), PARAMETERS.items())
def test_parameters_are_the_published_number(arch, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in build(arch, num_classes=100).parameters())
    assert f"{count / 1e6:.2f}" == millions


@pytest.mark.parametrize("arch", ["coc_tiny", "fec_small", "cluenet_micro"])
def test_backbone_gives_the_maps_that_the_head_reads(arch):
    classifier, backbone = golden_model(arch, num_classes=7), golden_model(arch, num_classes=0)
    assert {key for key in backbone.state_dict() if not key.startswith(("network", "patch_embed", "pos_embed"))} == {
        f"norm{i}.{part}" for i in (0, 2, 4, 6) for part in ("weight", "bias")
    }
    backbone.norm6.load_state_dict(classifier.norm.state_dict())
    picture = image(1, 3, 64, 128)
    with torch.no_grad():
        maps = backbone(picture)
        logits = classifier(picture)
        from_maps = classifier.head(maps[3].mean(dim=(-2, -1)))
    channels = ARCHS[arch].channels
    assert [tuple(m.shape) for m in maps] == [(1, c, 16 >> i, 32 >> i) for i, c in enumerate(channels)]
    torch.testing.assert_close(from_maps, logits)


def test_regions_are_clustered_alone():
    """One 2x2 fold of a map is the same as four maps of a quarter's size, each clustered whole."""
    folded, whole = (golden_model("fec_small", num_classes=3, fold=(f, 1, 1, 1)) for f in (2, 1))
    mixer, alone = (model.network[0][0].token_mixer for model in (folded, whole))
    x = image(2, 32, 8, 12)
    with torch.no_grad():
        out = mixer(x)
        quarters = [alone(q) for half in x.chunk(2, dim=2) for q in half.chunk(2, dim=3)]
    rows = [torch.cat(quarters[:2], dim=3), torch.cat(quarters[2:], dim=3)]
    torch.testing.assert_close(out, torch.cat(rows, dim=2))
    assert mixer.last_index.shape == (2 * 4 * 4, 4 * 6)


def test_grid_and_fold_may_differ_along_height_and_width():
    model = golden_model("fec_small", num_classes=0, grid=((2, 3), 5, 2, 2), fold=((1, 2), 1, 1, 1))
    with torch.no_grad():
        model(image(1, 3, 32, 64))
    first = cluster_layers(model)["network.0.0.token_mixer"]
    assert first.last_index.shape == (4 * 2, 8 * 8)
    assert int(first.last_index.max()) == 2 * 3 - 1


def test_later_blocks_of_a_cluenet_stage_share_the_assignment():
    model = golden_model("cluenet_tiny", num_classes=3)
    with torch.no_grad():
        model(image(1, 3, 64, 96))
    layers = cluster_layers(model)
    first, last = (layers[f"network.4.blocks.{i}.token_mixer"].last_index for i in (0, 4))
    assert first.shape == (8, 4 * 6)
    assert torch.equal(first, last)


def test_nothing_is_kept_unless_asked():
    model = build("cluenet_cifar", num_classes=3).eval()
    with torch.no_grad():
        model(image(1, 3, 16, 16))
    assert all(layer.last_index is None for layer in cluster_layers(model).values())


@pytest.mark.parametrize(
    ("arch", "overrides", "message"),
    [
        ("fec_huge", {}, "no architecture 'fec_huge'; there are coc_tiny"),
        ("cluenet_tiny", {"fold": (2, 1, 1, 1)}, "it has no fold"),
    ],
)
def test_what_cannot_be_built_is_refused(arch, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(arch, **overrides)


def test_a_fold_that_does_not_divide_the_map_is_refused():
    with pytest.raises(ValueError, match="a fold of 8x8 needs a map divisible by it, got 12x16"):
        build("coc_tiny", num_classes=3)(image(1, 3, 48, 64))


@pytest.mark.parametrize("arch", ["coc_tiny", "fec_small", "cluenet_cifar"])
def test_onnx_export_with_dynamic_batch(arch, tmp_path):
    """Every kind of layer once: exporting is slow. (cluenet_tiny at this size has points within 1e-6 of a tie.)"""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = build(arch, num_classes=5, blocks=(2, 1, 1, 1)).eval()
    golden_cases.fill(model, "clue" if arch.startswith("cluenet") else arch[:3])
    path = tmp_path / "model.onnx"
    example = image(2, 3, 32, 32) if arch == "cluenet_cifar" else image(2, 3, 64, 64)
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        model, (example,), path, dynamo=True, opset_version=18, dynamic_shapes=batch, input_names=["image"]
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in (1, 3):
        picture = image(size, *example.shape[1:])
        (logits,) = session.run(None, {"image": picture.numpy()})
        with torch.no_grad():
            expected = model(picture)
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)
