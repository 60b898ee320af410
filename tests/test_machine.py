"The machine: which GPU a torch can use, what is said of one that it can't, and what a CPU may do."
import types

import pytest

from coursekit import machine, workspace
from coursekit.workspace import doctor, setup


@pytest.mark.parametrize("archs, runs, fails", [
    (["sm_70", "sm_75", "sm_80", "sm_86", "sm_90"], [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)],
     [(6, 0), (6, 1), (10, 0), (12, 0)]),
    (["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], [(7, 5), (10, 0), (10, 3), (12, 1)],
     [(6, 0), (7, 0), (7, 2), (11, 0)]),
    (["sm_60", "sm_86"], [(6, 0), (6, 1), (8, 6), (8, 9)], [(5, 2), (7, 0), (8, 0)]),
    (["sm_50", "compute_50"], [(5, 0), (6, 0), (12, 1)], [(3, 7)]),
    (["sm_80", "compute_90"], [(8, 0), (8, 9), (9, 0), (12, 0)], [(7, 5), (6, 0)]),
    (["sm_90a", "compute_100f", "compute_120a"], [(9, 0), (10, 3), (12, 0)], [(9, 1), (11, 0), (12, 1)]),
    (["gfx906", "gfx90a"], [(9, 0), (9, 4)], []),
    ([], [(6, 0)], []),
])
def test_what_a_torch_has_kernels_for(archs, runs, fails):
    assert all(machine._has_kernels(c, archs) for c in runs) and not any(machine._has_kernels(c, archs) for c in fails)


def with_gpu(monkeypatch, name, capability, archs):
    "Let torch see a GPU, and be built for `archs`."
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda device=None: types.SimpleNamespace(name=name, total_memory=16e9))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: archs)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(workspace, "_HOSTS", {})


@pytest.mark.parametrize("name, capability, archs", [("Tesla P100-PCIE-16GB", (6, 0), ["sm_70", "sm_75", "sm_90"]),
                                                     ("Tesla V100-SXM2-16GB", (7, 0), ["sm_75", "sm_120"]),
                                                     ("NVIDIA GB10", (12, 1), ["sm_80", "sm_90"])])
def test_a_gpu_without_kernels_is_not_used_and_the_reason_said(name, capability, archs, monkeypatch, capsys):
    with_gpu(monkeypatch, name, capability, archs)
    assert setup("tiny").device == "cpu" and machine.gpu_name() == ""
    said, table = capsys.readouterr().out, doctor()
    assert said.count("\n") == 1 \
        and said.startswith(f"The GPU {name} (sm_{capability[0]}{capability[1]}) is not used") \
            and ", ".join(archs) in said
    assert said.endswith("install a torch that was built for it (pytorch.org/get-started).\n")
    assert table.found["GPU"] == said.strip() and table.found["scale full"] == "needs a GPU"
    assert name not in machine.environment(setup("tiny").device)["hardware"]


@pytest.mark.parametrize("name, capability, archs",
                         [("Tesla T4", (7, 5), ["sm_70", "sm_80"]), ("NVIDIA L4", (8, 9), ["sm_75", "sm_86"]),
                          ("NVIDIA GB10", (12, 1), ["sm_90", "compute_90"])])
def test_a_gpu_with_kernels_is_used_in_silence(name, capability, archs, monkeypatch, capsys):
    with_gpu(monkeypatch, name, capability, archs)
    assert setup("tiny").device == "cuda" and capsys.readouterr().out == ""
    assert machine.gpu_name() == doctor().found["GPU"] == f"{name}, 16 GB"


def test_the_remedy_is_where_one_is(colab, monkeypatch, capsys):
    with_gpu(monkeypatch, "Tesla P100-PCIE-16GB", (6, 0), ["sm_70"])
    assert "choose another GPU (Runtime > Change runtime type)." in doctor().found["GPU"]
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "choose another GPU (Settings > Accelerator > GPU T4 x2)." in doctor().found["GPU"]


@pytest.mark.parametrize("allowed, expected", [(None, True), ("ALL", True), ("avx512_core_amx", True), ("AVX2", False),
                                               ("AVX512_CORE_BF16", False)])
def test_a_cpu_is_taken_for_what_it_is_allowed_to_be(allowed, expected, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if allowed:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert machine.has_amx() is expected
