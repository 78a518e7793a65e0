"""The command line speaks Chinese where it is asked to: help, errors, headings of reports; English is the source."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import Cli

from regraft.language.choice import choose_language, chosen_language
from regraft.language.translate import catalogue, translated
from regraft.report.build import write_report
from regraft.report.html.language import in_chosen_language
from regraft.report.html.markup import Html

SCRIPT = Path(__file__).parents[2] / "scripts" / "untranslated.py"


def test_the_help_and_its_groups_are_chinese(cli: Cli) -> None:
    shown = cli("--lang", "zh", "--help")
    assert shown.code == 0
    assert [shown.out.index(f"─ {group} ─") for group in ("训练", "查看", "使用", "权重")]
    assert "用图片训练，评估，并写出报告。" in shown.out


@pytest.mark.parametrize("words", [("train", "--help", "--lang", "zh"), ("train", "--lang=zh", "--help")])
def test_the_language_may_stand_after_the_verb(cli: Cli, words: tuple[str, ...]) -> None:
    shown = cli(*words)
    assert "批大小" in shown.out
    assert "regraft train photos --model resnet50" in shown.out
    assert "所有命令" in shown.out
    assert "默认" in shown.out


def test_english_is_back_afterwards(cli: Cli) -> None:
    cli("--lang", "zh", "--help")
    assert "─ Train ─" in cli("--help").out
    assert "─ Options ─" in cli("train", "--help").out


def test_errors_say_in_chinese_what_to_try(cli: Cli, tmp_path: Path) -> None:
    shown = cli("--lang", "zh", "predict", str(tmp_path / "none"), "a.jpg")
    assert shown.code == 2
    assert shown.err.startswith("错误: ")
    assert "  试试: 用 `regraft runs` 看有哪些训练" in shown.err
    assert cli("predict", str(tmp_path / "none"), "a.jpg").err.startswith("error: ")


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_language(None)
    monkeypatch.delenv("REGRAFT_LANG")
    for value, language in (("zh_CN.UTF-8", "zh"), ("C.UTF-8", "en"), ("de_DE.UTF-8", "en"), ("zh_TW", "zh")):
        monkeypatch.setenv("LC_ALL", value)
        assert chosen_language() == language
    monkeypatch.setenv("REGRAFT_LANG", "en")
    assert chosen_language() == "en"


def test_other_languages_are_refused(cli: Cli) -> None:
    assert cli("--lang", "fr", "runs").code == 2


def test_a_value_after_two_dashes_is_not_a_language(cli: Cli, tmp_path: Path) -> None:
    assert cli("runs", "--", "--lang").err.startswith("error: ")


def test_a_report_has_chinese_headings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_LANG", "zh")
    choose_language(None)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert '<html lang="zh">' in page
    assert "<h2>曲线</h2>" in page
    assert ">冻结与训练</a>" in page
    assert ">没有 epoch 的记录。</p>" in page


def test_what_comes_from_a_run_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_LANG", "zh")
    choose_language(None)
    written = '<h4>Worst errors <small>(all 3, the surest first)</small></h4><th class="number">images</th>'
    translated_page = '<h4>最严重的错误 <small>（全部 3 个，最确信的在前）</small></h4><th class="number">图片数</th>'
    own = "<td>Data</td>"
    assert in_chosen_language(Html(written + own)) == translated_page + own
    monkeypatch.setenv("REGRAFT_LANG", "en")
    assert in_chosen_language(Html(written)) == written


def test_sentences_with_gaps_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_LANG", "zh")
    choose_language(None)
    assert translated("`regraft resume runs/a` to continue it") == "用 `regraft resume runs/a` 接着训练"
    assert translated("Nobody translated this.") == "Nobody translated this."
    assert translated("YAML recipe.\n\nNobody did.") == "YAML 格式的 recipe。\n\nNobody did."


def test_every_sentence_has_the_gaps_and_the_commands_of_the_english_one() -> None:
    for english, chinese in catalogue().items():
        assert english.count("{}") == chinese.count("{}"), english
        flags = [re.findall(r"--[a-z-]+", text) for text in (english, chinese)]
        assert set(flags[0]) == set(flags[1]), english


def untranslated_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("untranslated", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_what_is_said_is_translated() -> None:
    """`scripts/untranslated.py` lists the rest; what is new may be in English for a while."""
    script = untranslated_script()
    for texts, share, least in ((script.help_texts, 0.95, 170), (script.hints, 0.97, 390)):
        said = set(texts())
        assert len(said) >= least, "not all of them are found in the source"
        missing = script.untranslated(said)
        assert len(missing) <= (1 - share) * len(said), missing


def test_hints_are_found_however_they_are_written() -> None:
    """By condition, concatenation, constant, function, and as an argument of what raises."""
    script = untranslated_script()
    tree = ast.parse(
        "_GO = 'go there'\n"
        "def _other(name):\n    if name:\n        return f'name {name} first'\n    return 'name it'\n"
        "raise DataError('a', 'b', 'one' if x else 'other')\n"
        "raise SettingsError('a', 'b', 'leave ' + ('it' if x else 'them') + f', or give {y}')\n"
        "raise StorageError('a', next_step=_GO)\n"
        "raise WeightsError('a', 'b', _other(x))\n"
        "require_type(x, str, 'x', f'call it {\"this\" if x else \"that\"}')\n"
    )
    said = ["one", "other", "leave it, or give {}", "leave them, or give {}", "go there", "name {} first", "name it"]
    assert sorted(script.hints([tree])) == sorted([*said, "call it this", "call it that"])
