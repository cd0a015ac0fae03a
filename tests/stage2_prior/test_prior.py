"""The settings that a prior allows, its hash, its order, and its extra labels."""

import pytest
import torch
from tiny_priors import KINDS, SQUARE, make_prior

from stage2_prior import GridSpec, PriorSpec, SamplingSettings, build_prior, load_prior
from stage2_prior.sampling import checks

GUIDED = SamplingSettings(guidance_scale=2.0)


@pytest.mark.parametrize(
    ("num_classes", "label_dropout", "expected"),
    [(3, 0.1, True), (3, 0.0, False), (None, 0.1, False)],
)
def test_prior_can_guide_if_it_was_trained_with_and_without_labels(
    num_classes, label_dropout, expected
):
    prior = make_prior("pixelcnn", SQUARE, num_classes, label_dropout=label_dropout)
    assert prior.can_guide == expected
    if expected:
        assert prior.resolve(GUIDED, 1, labelled=True) == GUIDED
    else:
        with pytest.raises(ValueError, match="guidance"):
            prior.resolve(GUIDED, 1, labelled=num_classes is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_resolved_to_what_can_be_done(kind, monkeypatch):
    monkeypatch.setattr(checks, "can_compile", lambda _device: True)
    prior = make_prior(kind, SQUARE)
    assert prior.resolve(None, 1, labelled=False) == SamplingSettings()
    # Half a million codes are worth compiling: 125,000 images of four.
    auto = SamplingSettings(compile="auto")
    decided = [prior.resolve(auto, n, labelled=False).compile for n in (124_999, 125_000)]
    assert decided == ["off", "on" if kind == "transformer" else "off"]


@pytest.mark.parametrize(
    ("kind", "num_classes", "settings", "message"),
    [
        ("pixelcnn", None, {"precision": "bfloat16"}, "bfloat16 .*transformer .*pixelcnn"),
        ("pixelcnn", None, {"compile": "on"}, "compile .*transformer .*pixelcnn"),
        ("transformer", None, {"compile": "on", "num_steps": 3}, "compile .*num_steps 3"),
        ("transformer", None, {"guidance_scale": 2.0}, r"guidance_scale 2\.0 .*with labels"),
        ("transformer", 3, {"guidance_scale": 2.0}, r"guidance_scale 2\.0 needs labels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(kind, num_classes, settings, message):
    prior, settings = make_prior(kind, SQUARE, num_classes), SamplingSettings(**settings)
    for refused in (
        lambda: prior.resolve(settings, 1, labelled=False),
        lambda: prior.sample(1, settings=settings),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


@pytest.mark.parametrize("kind", KINDS)
def test_hash_of_the_weights_follows_every_weight_and_survives_saving(kind, tmp_path):
    prior = make_prior(kind, SQUARE, 3)
    before = prior.weights_hash()
    prior.save_pretrained(tmp_path / "prior")
    assert load_prior(tmp_path / "prior").weights_hash() == before
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.view(-1)[-1] += 1
            changed = prior.weights_hash()
            parameter.view(-1)[-1] -= 1
            assert changed != before


def test_prior_of_several_grids_is_sampled_in_its_order():
    grids = (GridSpec(1, 2, 3), GridSpec(1, 2, 4))
    orders = {kind: make_prior(kind, grids).sampling_order.tolist() for kind in KINDS}
    assert orders == {"transformer": [0, 1, 2, 3], "pixelcnn": [0, 2, 1, 3]}


@pytest.mark.parametrize("kind", KINDS)
def test_extra_labels_add_rows_to_the_label_embeddings_only(kind):
    shapes = []
    for extra in (0, 5):
        spec = PriorSpec(grids=SQUARE, num_classes=3, num_extra_labels=extra)
        state = build_prior(make_prior(kind, SQUARE).config, spec).state_dict()
        shapes.append({name: tuple(tensor.shape) for name, tensor in state.items()})
    differing = {name for name, shape in shapes[0].items() if shape != shapes[1][name]}
    assert differing == {name for name in shapes[0] if "label" in name}
    assert {(shapes[0][n][0], shapes[1][n][0]) for n in differing} == {(4, 9)}


def test_pixelcnn_refuses_grids_of_several_shapes():
    with pytest.raises(ValueError, match=r"\[\(2, 2\), \(4, 4\)\].*transformer"):
        make_prior("pixelcnn", (GridSpec(2, 2, 3), GridSpec(4, 4, 3)))
