"""Activations written to zarr as they come: what ``cache`` gives, in bounded memory, resumed, on S3."""

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, NumericalError, RunFolderError, SiteError
from mechvrp.tracing import streaming

SITES = ["resid_post", "blocks.1.attn.hook_k", "projected", "vision_resid_post"]
NAME = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def llava():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def samples():
    return mechvrp.data.load("scenes", limit=22, seed=4)


@pytest.fixture
def little(monkeypatch):
    """Pieces and chunks so small that there are many of both."""
    monkeypatch.setattr(streaming, "_HELD", 60_000)
    monkeypatch.setattr(streaming, "_CHUNK", 5_000)


def written(llava, samples, to, **more):
    options = {"positions": "question", "batch_size": 4, "progress": False, **more}
    return mechvrp.cache_to_zarr(llava, samples, SITES[:2], to, **options)


@pytest.mark.parametrize("positions", ["last", "image", "question", "all"])
def test_it_holds_what_cache_gives(llava, samples, tmp_path, little, positions):
    sites = SITES if positions in ("image", "all") else SITES[:2]
    found = mechvrp.cache_to_zarr(
        llava, samples, sites, tmp_path / "acts.zarr", positions=positions, batch_size=5, progress=False
    )  # fmt: skip
    expected = mechvrp.cache(llava, samples, sites, positions=positions, batch_size=5)
    assert {str(name) for name in found.data_vars} == set(expected)
    for name in expected:
        rows, suffix = (
            expected.rows(name),
            {"vision_projector.hook_out": "_projected"}.get(name, ""),
        )
        suffix = "_vision" if name.startswith("vision_encoder") else suffix
        assert np.array_equal(found[name].values, expected.flat(name).numpy()), name
        for label, value in (
            ("example", rows.example), ("position", rows.position), ("token_row", rows.row),
            ("token_col", rows.col),
        ):  # fmt: skip
            assert np.array_equal(found[label + suffix].values, value.numpy()), (name, label)
    assert found.attrs["examples"] == len(samples)
    # An example's rows can be taken by its number.
    third = found[NAME].isel(row=found["example"].values == 3).values
    assert np.array_equal(third, expected.flat(NAME).numpy()[expected.rows(NAME).example == 3])


def test_a_call_that_was_cut_off_goes_on(llava, samples, tmp_path, little, monkeypatch):
    whole = written(llava, samples, tmp_path / "whole.zarr")
    real, calls, most = llava.encode, [], [3]

    def cut(chunk, **options):
        calls.append(len(chunk))
        if len(calls) > most[0]:
            raise KeyboardInterrupt
        return real(chunk, **options)

    monkeypatch.setattr(llava, "encode", cut)
    with pytest.raises(KeyboardInterrupt):
        written(llava, samples, tmp_path / "cut.zarr")
    with pytest.raises(RunFolderError, match=r"holds (4|8|12) of 22 examples: make the same call"):
        mechvrp.open_cache(tmp_path / "cut.zarr")
    # As if it had been cut off while it wrote: rows that do not count yet, and nonsense in them.
    import zarr

    group = zarr.open_group(str(tmp_path / "cut.zarr"))
    array = group[NAME]
    array.resize((array.shape[0] + 7, *array.shape[1:]))
    array[-7:] = 1e9
    calls.clear()
    most[0] = 99
    again = written(llava, samples, tmp_path / "cut.zarr")
    assert sum(calls) < len(samples)
    assert again.identical(whole)
    calls.clear()
    assert written(llava, samples, tmp_path / "cut.zarr").identical(whole)
    assert not calls


def test_another_call_or_program_is_refused(llava, samples, tmp_path):
    to = tmp_path / "acts.zarr"
    written(llava, samples, to)
    with pytest.raises(RunFolderError, match="positions: 'question' against 'last'"):
        written(llava, samples, to, positions="last")
    with pytest.raises(RunFolderError, match="examples: 22 against 21; samples: "):
        written(llava, samples[:21], to)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(RunFolderError, match="holds something else"):
        written(llava, samples, tmp_path / "mine")
    with pytest.raises(RunFolderError, match="there are no activations"):
        mechvrp.open_cache(tmp_path / "nothing")
    import zarr

    zarr.open_group(str(tmp_path / "theirs"), mode="w")
    for call in (mechvrp.open_cache, lambda path: written(llava, samples, path)):
        with pytest.raises(RunFolderError, match="another program"):
            call(tmp_path / "theirs")


def test_one_process_writes_at_a_time(llava, samples, tmp_path, monkeypatch, s3, little):
    """Two that append to one store by turns would lose rows, and call it complete."""
    real = llava.encode
    for to, options in (
        (tmp_path / "acts.zarr", {}),
        ("s3://bucket/two/acts.zarr", {"storage_options": s3}),
    ):
        refused = []

        def meanwhile(chunk, to=to, options=options, refused=refused, **more):
            if not refused:
                refused.append("tried")
                with pytest.raises(RunFolderError, match="being written by another process"):
                    written(llava, samples, to, **options)
            return real(chunk, **more)

        monkeypatch.setattr(llava, "encode", meanwhile)
        found = written(llava, samples, to, **options)
        monkeypatch.setattr(llava, "encode", real)
        assert refused
        assert found["example"].values.max() == len(samples) - 1


def test_another_batch_is_another_call(llava, samples, tmp_path):
    written(llava, samples[:8], tmp_path / "acts.zarr")
    with pytest.raises(RunFolderError, match="batch_size: 4 against 3"):
        written(llava, samples[:8], tmp_path / "acts.zarr", batch_size=3)
    many = np.arange(-2000, 0)
    first, second = tmp_path / "a.zarr", many.copy()
    second[1000] = -1
    assert str(many) == str(second)
    with pytest.raises(SiteError, match="positions"):
        written(llava, samples[:8], first, positions=many)  # too many; the store is made by then
    with pytest.raises(RunFolderError, match=r"positions: .*\[-2000, .{40,60} against"):
        written(llava, samples[:8], first, positions=second)


def test_values_whose_file_was_lost_are_not_zeros(llava, samples, tmp_path, little):
    found = written(llava, samples[:8], tmp_path / "acts.zarr")
    assert np.isfinite(found[NAME].values).all()
    next(p for p in (tmp_path / "acts.zarr" / NAME / "c").rglob("*") if p.is_file()).unlink()
    assert np.isnan(mechvrp.open_cache(tmp_path / "acts.zarr")[NAME].values).any()


def test_a_store_that_is_damaged_or_of_an_enemy_is_refused(llava, samples, tmp_path):
    import json
    import shutil

    whole = tmp_path / "whole.zarr"
    written(llava, samples[:4], whole)

    def changed(name, change):
        out = tmp_path / "changed.zarr"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        held = json.loads((out / name).read_text())
        change(held)
        (out / name).write_text(json.dumps(held))
        return out

    for values, words in (
        ({"done": "4"}, "its attributes are"),
        ({"done": -1}, "its attributes are"),
        ({"sites": None}, "its attributes are"),
        ({"rows": "nonsense"}, "its attributes are"),
        ({"rows": '{"prompt": 1}'}, "the rows that count"),
        ({"sites": ["blocks.9.hook_resid_post"]}, "it lacks blocks.9"),
        ({"format_version": 9}, "of format 9"),
    ):
        out = changed("zarr.json", lambda held, v=values: held["attributes"].update(v))
        with pytest.raises(RunFolderError, match=words):
            mechvrp.open_cache(out)
    array = f"{NAME}/zarr.json"
    plain = {"name": "bytes", "configuration": {"endian": "little"}}
    for values in (
        {"codecs": [plain, {"name": "gzip", "configuration": {"level": 1}}]},
        {"codecs": [{"name": "vlen-utf8"}], "data_type": "string", "fill_value": ""},
        {"shape": [10**12, 96]},
    ):
        with pytest.raises(RunFolderError, match="is damaged"):
            mechvrp.open_cache(changed(array, lambda held, v=values: held.update(v)))
    with pytest.raises(RunFolderError, match="cannot be read"):
        mechvrp.open_cache(changed(array, lambda held: held.update(data_type="no such thing")))
    # What attributes say of scales is not done to values.
    scaled = changed(array, lambda held: held["attributes"].update(scale_factor=100.0))
    assert mechvrp.open_cache(scaled)[NAME].identical(
        mechvrp.open_cache(whole)[NAME].assign_attrs(scale_factor=100.0)
    )
    (whole / "zarr.json").write_text("{")
    for call in (mechvrp.open_cache, lambda path: written(llava, samples[:4], path)):
        with pytest.raises(RunFolderError, match="cannot be read"):
            call(whole)


def test_a_store_of_zarrs_older_format_is_none_of_ours(tmp_path):
    """Its arrays may be of objects that a codec unpickles."""
    import zarr

    group = zarr.open_group(str(tmp_path / "old.zarr"), mode="w", zarr_format=2)
    ours = {"format": "mechvrp-activations", "format_version": 1}
    group.attrs.update({**ours, "done": 1, "examples": 1, "rows": "{}", "sites": []})
    with pytest.raises(RunFolderError, match="there are no activations"):
        mechvrp.open_cache(tmp_path / "old.zarr")


def test_what_has_no_place_there_is_refused_before_anything_runs(llava, samples, tmp_path):
    def call(*args, **more):
        return mechvrp.cache_to_zarr(llava, *args, tmp_path / "no.zarr", progress=False, **more)

    with pytest.raises(SiteError, match="no common shape"):
        call(samples, "blocks.1.attn.hook_pattern")
    with pytest.raises(InputError, match="zarr has no torch.bfloat16"):
        call(samples, NAME, dtype=torch.bfloat16)
    with pytest.raises(InputError, match="at least one"):
        call([], NAME)
    with pytest.raises(SiteError, match="count from the end"):
        call(samples, NAME, positions=[3])
    assert not (tmp_path / "no.zarr").exists()


def test_numbers_beyond_a_dtype_are_refused(samples, tmp_path):
    model = mechvrp.load("tiny-llava")
    with torch.no_grad():
        model.model.get_input_embeddings().weight.mul_(1e6)
    kept = mechvrp.cache_to_zarr(
        model, samples[:2], "blocks.0.hook_resid_pre", tmp_path / "a.zarr", progress=False
    )
    assert kept["blocks.0.hook_resid_pre"].dtype == np.float32
    with pytest.raises(NumericalError, match="kept as float16"):
        mechvrp.cache_to_zarr(
            model, samples[:2], "blocks.0.hook_resid_pre", tmp_path / "b.zarr", dtype=torch.float16,
            progress=False,
        )  # fmt: skip


def test_bfloat16_is_kept_as_float32(samples, tmp_path):
    model = mechvrp.load("tiny-llava", dtype="bfloat16")
    found = written(model, samples[:4], tmp_path / "a.zarr", positions="last")
    expected = mechvrp.cache(model, samples[:4], NAME, positions="last", batch_size=4)
    assert np.array_equal(found[NAME].values, expected[NAME].float().numpy())


def test_it_can_be_on_s3(llava, samples, s3, little):
    to, options = "s3://bucket/deep/acts.zarr", {"storage_options": s3}
    found = written(llava, samples, to, **options)
    expected = mechvrp.cache(llava, samples, NAME, positions="question", batch_size=4)
    assert np.array_equal(found[NAME].values, expected.flat(NAME).numpy())
    assert mechvrp.open_cache(to, **options).identical(found)
