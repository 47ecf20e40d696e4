from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_bench import prompts
from ff_bench.config import conf_dir
from ff_bench.errors import UsageError
from ff_bench.models.facts import facts

SETS = conf_dir() / "prompts"


def _load(path: Path, *, model: str = "self_forcing") -> prompts.PromptSet:
    return prompts.load(str(path), SETS, model=facts(model))


@pytest.mark.parametrize("name", sorted(prompts.set_files(SETS)))
def test_shipped_sets_name_source_licence_and_digest(name: str) -> None:
    reader = "mini" if name in facts("mini").prompt_sets else "self_forcing"
    listed = prompts.load(name, SETS, model=facts(reader))
    assert listed.source
    assert listed.licence
    header = (SETS / f"{name}.txt").read_text(encoding="utf-8")
    assert f"# sha256: {listed.sha256}" in header
    assert len({prompt.id for prompt in listed.prompts}) == len(listed.prompts)


def test_every_format_gives_the_same_prompts(tmp_path: Path) -> None:
    texts = ["A cat, on a mat", "Two dogs # running", "Ein Bär läuft"]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n", encoding="utf-8-sig")
    lines = "".join(f'1{place},"{text}"\n' for place, text in enumerate(texts))
    (tmp_path / "b.csv").write_text("id,prompt\n" + lines, encoding="utf-8")
    (tmp_path / "c.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts), encoding="utf-8")
    read = [_load(tmp_path / name) for name in ("a.txt", "b.csv", "c.jsonl")]
    assert [[prompt.text for prompt in listed.prompts] for listed in read] == [texts] * 3
    assert len({listed.sha256 for listed in read}) == 1
    assert [prompt.id for prompt in read[1].prompts] == ["10", "11", "12"]
    assert read[0].prompts[0].id.startswith("a-cat-on-a-mat-")


def test_ids_and_limit_choose_in_the_order_of_the_set(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nfour\n")
    listed = _load(tmp_path / "a.txt")
    names = [prompt.id for prompt in listed.prompts]
    chosen = prompts.choose(listed, ids=[3, names[1], 0], limit=2)
    assert [prompt.text for prompt in chosen] == ["one", "two"]
    with pytest.raises(UsageError, match="ids=4"):
        prompts.choose(listed, ids=[4], limit=None)


def test_mini_prompts_are_read_to_their_canonical_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("orbit path=7 palette=3\n")
    (prompt,) = _load(tmp_path / "a.txt", model="mini").prompts
    assert prompt.text == "orbit palette=3 speed=2 sprite=disc hue=teal path=7"
    (tmp_path / "b.txt").write_text("orbit\nA cat on a mat\n")
    with pytest.raises(UsageError, match="model=mini: prompt 2"):
        _load(tmp_path / "b.txt", model="mini")


def test_repeated_prompts_are_used_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\none\n")
    assert [prompt.text for prompt in _load(tmp_path / "a.txt").prompts] == ["one", "two"]
    assert "1 repeated" in caplog.text


def test_an_id_never_becomes_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "../../x", "prompt": "one"}\n')
    with pytest.raises(UsageError, match="id"):
        _load(tmp_path / "a.jsonl")


@settings(max_examples=60)
@given(st.binary(max_size=60), st.sampled_from(prompts.ENDINGS))
def test_any_bytes_give_prompts_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(content)
    try:
        for prompt in _load(path).prompts:
            assert prompt.text.strip()
            assert "/" not in prompt.id
    except UsageError as error:
        assert "\n" not in str(error)
