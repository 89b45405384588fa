"""The pieces around Triton: finding the embedded one, repository entries, error texts, made-up inputs."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.sample import DYNAMIC_SIZES, scatter, zeros
from adapters.server import Address
from adapters.signature import DYNAMIC, Datatype, TensorSpec
from adapters.triton.embedded import EmbeddedTriton, EmbeddedUnavailable, find_libpython
from adapters.triton.reason import MOST_CHARACTERS, short_reason
from adapters.triton.repository import Repository


class TestEmbedded:
    def test_the_installed_one_is_found_and_starts(self) -> None:
        EmbeddedTriton.find().check()

    def test_the_command_binds_loopback_and_loads_nothing_by_itself(self, tmp_path: Path) -> None:
        embedded = EmbeddedTriton.find()
        command = embedded.command(
            repository=tmp_path,
            backends=tmp_path / "backends",
            grpc=Address("127.0.0.1", 1),
            http=Address("127.0.0.1", 2),
            metrics=Address("127.0.0.1", 3),
        )
        assert command[0] == str(embedded.binary)
        for option in (
            "--model-control-mode=explicit",
            "--exit-on-error=false",
            "--grpc-address=127.0.0.1",
            "--http-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            "--grpc-port=1",
            "--http-port=2",
            "--metrics-port=3",
        ):
            assert option in command
        assert not any(option.startswith("--load-model") for option in command)

    def test_the_environment_has_this_python_first_and_nothing_that_leads_elsewhere(self) -> None:
        base = {"PATH": "/usr/bin", "PYTHONPATH": "/elsewhere", "PYTHONHOME": "/elsewhere", "HOME": "/home/me"}
        made = EmbeddedTriton.find().environment(base)
        assert made["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
        assert "PYTHONPATH" not in made
        assert "PYTHONHOME" not in made
        assert made["HOME"] == "/home/me"

    def test_backends_can_be_prepared_again_over_themselves(self, tmp_path: Path) -> None:
        embedded = EmbeddedTriton.find()
        for _ in range(2):
            assert embedded.prepare(tmp_path) == tmp_path
            names = {path.name for path in (tmp_path / "python").iterdir()}
            assert names == {"libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"}
        assert os.access(tmp_path / "python" / "triton_python_backend_stub", os.X_OK)

    def test_a_missing_libpython_names_the_package_to_install(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedUnavailable, match=r"apt-get install libpython3\.11") as told:
            find_libpython([tmp_path, tmp_path / "other"])
        assert str(tmp_path) in str(told.value)
        assert "--triton 127.0.0.1:8001" in str(told.value), "the way out that needs nothing installed"

    def test_a_library_that_does_not_load_is_told_in_the_loaders_words(self, tmp_path: Path) -> None:
        bare = dataclasses.replace(EmbeddedTriton.find(), libraries=tmp_path, libpython=tmp_path / "libpython.so")
        copied = tmp_path / "tritonserver"
        # Away from the wheel's folders its libraries are found by the environment only, and here they are not.
        copied.write_bytes(bare.binary.read_bytes())
        copied.chmod(0o755)
        with pytest.raises(EmbeddedUnavailable, match=r"tritonserver does not start: .*shared libraries"):
            dataclasses.replace(bare, binary=copied).check()

    # What follows cannot run here for real: another system, another Python, a missing wheel. So the answers of the
    # interpreter are replaced.
    def test_macos_is_pointed_to_a_container(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        with pytest.raises(EmbeddedUnavailable, match=r"this is Darwin on arm64.*docker run"):
            EmbeddedTriton.find()

    def test_another_python_is_told_which_one_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 12, 1))
        with pytest.raises(EmbeddedUnavailable, match=r"needs Python 3\.11"):
            EmbeddedTriton.find()

    def test_a_missing_wheel_is_told_with_the_command_that_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(EmbeddedUnavailable, match="-m pip install nvidia-pytriton"):
            EmbeddedTriton.find()


class TestRepository:
    def test_an_entry_is_written_whole_and_links_the_artefact(self, tmp_path: Path) -> None:
        model = tmp_path / "stored.onnx"
        model.write_bytes(b"weights")
        repository = tmp_path / "repository"
        Repository(repository).write("digits.1", config="a: 1", files={"1/model.onnx": model, "1/model.py": b"code"})
        entry = repository / "digits.1"
        assert (entry / "config.pbtxt").read_text() == "a: 1"
        assert (entry / "1/model.py").read_bytes() == b"code"
        assert (entry / "1/model.onnx").stat().st_ino == model.stat().st_ino
        assert [path.name for path in repository.iterdir()] == ["digits.1"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["repository", "stored.onnx"]

    def test_an_entry_replaces_the_one_before(self, tmp_path: Path) -> None:
        Repository(tmp_path).write("digits.1", config="a: 1", files={"1/old.py": b"old"})
        Repository(tmp_path).write("digits.1", config="a: 2", files={"1/new.py": b"new"})
        assert [path.name for path in (tmp_path / "digits.1/1").iterdir()] == ["new.py"]
        assert [path.name for path in tmp_path.iterdir()] == ["digits.1"]

    def test_what_cannot_be_written_leaves_the_one_before(self, tmp_path: Path) -> None:
        Repository(tmp_path).write("digits.1", config="a: 1", files={})
        with pytest.raises(FileNotFoundError):
            Repository(tmp_path).write("digits.1", config="a: 2", files={"1/model.onnx": tmp_path / "missing"})
        assert (tmp_path / "digits.1/config.pbtxt").read_text() == "a: 1"
        assert [path.name for path in tmp_path.iterdir()] == ["digits.1"]

    def test_removing_what_is_not_there_is_no_error(self, tmp_path: Path) -> None:
        Repository(tmp_path).remove("never")

    def test_an_entry_stays_while_triton_looks_and_when_it_is_wanted_again(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path)
        for name in ("a.1", "b.1"):
            repository.write(name, config="", files={})
        with repository.looked_at():
            with repository.looked_at():
                repository.remove("a.1")
                repository.remove("b.1")
            assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1", "b.1"]
            repository.keep("b.1")
        assert [path.name for path in tmp_path.iterdir()] == ["b.1"]


class TestReason:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (
                "load failed for model 'digits.1': version 1 is at UNAVAILABLE state: Internal: InvalidProtobuf: "
                "[ONNXRuntimeError] : 7 : Protobuf parsing failed.\n\nAt:\n  /a/b.py(778): create\n  /c.py(1): x\n;\n",
                "InvalidProtobuf: [ONNXRuntimeError] : 7 : Protobuf parsing failed.",
            ),
            ("[StatusCode.INTERNAL] Invalid argument: no such backend", "no such backend"),
            ("", "no reason given"),
        ],
    )
    def test_what_helps_is_kept(self, message: str, reason: str) -> None:
        assert short_reason(message) == reason

    @given(st.text())
    def test_any_text_becomes_one_line_of_bounded_length(self, message: str) -> None:
        reason = short_reason(message)
        assert reason
        assert len(reason.splitlines()) == 1
        assert len(reason) <= MOST_CHARACTERS + len(" ...")


class TestMadeUpInputs:
    specs = (TensorSpec("x", Datatype.FP32, (2, DYNAMIC)), TensorSpec("t", Datatype.BYTES, ()))

    def test_dynamic_dimensions_are_tried_at_several_sizes(self) -> None:
        shapes = [sample["x"].shape for sample in zeros(self.specs, rows=3)]
        assert shapes == [(3, 2, size) for size in DYNAMIC_SIZES]

    def test_without_dynamic_dimensions_one_try_is_enough(self) -> None:
        (sample,) = zeros(self.specs[1:], rows=None)
        assert sample["t"].shape == ()
        assert sample["t"].item() == ""

    def test_many_dynamic_dimensions_do_not_fill_the_memory(self) -> None:
        wide = TensorSpec("x", Datatype.FP32, (DYNAMIC,) * 6)
        assert [sample["x"].size for sample in zeros([wide], rows=1)] == [1, 8**6]

    def test_scattered_values_keep_shape_and_type_and_repeat_with_the_seed(self) -> None:
        like = next(zeros(self.specs, rows=3))
        one, again = scatter(like, 1), scatter(like, 1)
        for name, array in like.items():
            assert one[name].shape == array.shape
            assert one[name].dtype == array.dtype
            assert (one[name] == again[name]).all()
