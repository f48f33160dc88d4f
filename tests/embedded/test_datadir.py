"""A data dir has one owner and one format, and says who and which."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtally.embedded import datadir, upfile
from runtally.embedded.datadir import Demo
from runtally.embedded.upfile import UpFile, load_settings
from runtally.errors import AlreadyRunningError, SettingError, UserError
from runtally.store.keys import FORMAT


def _up_file(**pids: int) -> UpFile:
    addresses = ("127.0.0.1:1", "redis://127.0.0.1:2/0", "http://127.0.0.1:3", "http://127.0.0.1:4/metrics")
    return UpFile(*addresses, pids={"up": os.getpid(), **pids}, started=upfile.own_start())


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    with datadir.own(tmp_path):
        upfile.write(tmp_path, _up_file())
        with (
            pytest.raises(AlreadyRunningError, match=rf"\(process {os.getpid()}\).*http://127.0.0.1:3.*--data-dir"),
            datadir.own(tmp_path),
        ):
            pass
    upfile.remove(tmp_path)
    with datadir.own(tmp_path):
        pass


@pytest.mark.parametrize(("number", "way"), [(FORMAT + 1, "that newer runtally"), (FORMAT - 1, "fills itself")])
def test_data_of_another_format_is_refused_by_its_number(tmp_path: Path, number: int, way: str) -> None:
    (tmp_path / "format").write_text(f"{number}\n")
    told = rf"format {number}, this version reads format {FORMAT}: .*{way}.*"
    with pytest.raises(UserError, match=told), datadir.own(tmp_path):
        pass


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"), datadir.own(tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/data cannot be used.*--data-dir"),
        datadir.own(tmp_path / "file" / "data"),
    ):
        pass


def test_children_of_a_killed_up_are_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.7)"]) as orphan:
        upfile.write(tmp_path, _up_file(orphan=orphan.pid, up=2**22))
        (tmp_path / "format").write_text(f"{FORMAT}\n")
        begun = time.monotonic()
        with datadir.own(tmp_path):
            assert orphan.poll() is not None
        assert time.monotonic() - begun > 0.1
    assert upfile.read_any(tmp_path) is None


def test_how_far_the_demo_came_is_remembered(tmp_path: Path) -> None:
    with datadir.own(tmp_path / "new") as data:
        assert data.demo() is None
        data.note_demo(Demo(7, 123, "embedded"))
        assert data.demo() == Demo(7, 123, "embedded")


def test_a_log_that_grew_large_is_put_aside(tmp_path: Path) -> None:
    with datadir.own(tmp_path) as data:
        log = data.log("worker")
        log.parent.mkdir()
        log.write_bytes(b"x" * (5 << 20))
        assert not data.log("worker").exists()
        assert (log.parent / "worker.log.1").stat().st_size == 5 << 20


def test_commands_beside_an_up_find_its_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTALLY_DATA_DIR", str(tmp_path))
    upfile.write(tmp_path, _up_file())
    settings = load_settings()
    assert (settings.kafka, settings.redis_url, settings.url) == (
        "127.0.0.1:1",
        "redis://127.0.0.1:2/0",
        "http://127.0.0.1:3",
    )


def test_what_is_named_wins_over_a_running_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTALLY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RUNTALLY_REDIS_URL", "redis://elsewhere:6379/0")
    upfile.write(tmp_path, _up_file())
    settings = load_settings({"kafka": "kafka:9092", "partitions": None})
    assert (settings.kafka, settings.redis_url, settings.partitions) == ("kafka:9092", "redis://elsewhere:6379/0", 8)


def test_an_up_that_is_gone_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTALLY_DATA_DIR", str(tmp_path))
    upfile.write(tmp_path, _up_file(up=2**22))
    assert load_settings().kafka == "127.0.0.1:9092"
    (tmp_path / "up.json").write_text("{")
    assert load_settings().kafka == "127.0.0.1:9092"


def test_a_wrong_address_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTALLY_KAFKA", "kafka without port")
    with pytest.raises(SettingError, match="RUNTALLY_KAFKA"):
        load_settings()
