import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.figures.firmware import CHIP, MEMORY_BYTES, firmware_figures
from bench_tests.harness.report.figures.speech import speech_figures
from bench_tests.unit.specs import compiled
from bench_tests.unit.stored import material, record, run
from optim.backends.avr.build import UNO

HOSTILE = '<img src=x onerror="alert(1)">\n' + "'\"" + "n" * 300


def chunk(size, call_ms, backend="eager", speedup=1.0, batch=1, **more):
    """A call on so many ms of sound."""
    call_s = 1e-3 * call_ms
    return record(
        workload="kws_streaming", data="speech_happy", size=size, unit="ms", backend=backend, batch=batch,
        trimmed_mean_s=call_s, minimum_s=0.9 * call_s, stddev_s=0.1 * call_s, fps=batch / call_s, speedup=speedup,
        speedup_low=0.99 * speedup, speedup_high=1.01 * speedup, real_time_factor=call_ms / (batch * size),
        case=f"{more.get('recipe', '')}-{backend}-{size}ms-b{batch}", **more,
    )  # fmt: skip


def group_of(tmp_path, *records):
    (group,) = material(tmp_path, run(records)).groups
    return group


def test_the_fastest_at_every_length_is_the_finding(tmp_path, capfd):
    (figure,) = speech_figures(
        group_of(
            tmp_path,
            chunk(10, 0.4), chunk(1000, 0.9),
            chunk(10, 0.1, "onnxruntime", 4.0), chunk(1000, 0.3, "onnxruntime", 3.0),
        )
    )  # fmt: skip
    assert figure.title == (
        "onnxruntime is fastest at every chunk length: 1.0 % of real time with chunks of 10 ms and 0.030 % of real "
        "time with chunks of 1000 ms"
    )
    assert "a call takes 100 us for 10 ms of sound and 300 us for 1000 ms" in figure.note[0]
    assert "100 times the sound for 3.0 times the work" in figure.note[0]
    assert "eager: 4.0 % at 10 ms, 0.090 % at 1000 ms." in figure.alt
    compiled(figure, capfd)
    compiled(figure, capfd, rows=[])


def test_doubt_is_told(tmp_path):
    (figure,) = speech_figures(
        group_of(
            tmp_path,
            chunk(10, 0.2, "openvino", 2.0), chunk(1000, 0.3, "openvino", 3.00),
            chunk(10, 0.1, "onnxruntime", 4.0), chunk(1000, 0.3, "onnxruntime", 3.01),
        )
    )  # fmt: skip
    assert figure.title.startswith("onnxruntime is fastest at every chunk length, though not clearly at 1000 ms: ")


def test_another_winner_at_another_length(tmp_path):
    (figure,) = speech_figures(
        group_of(
            tmp_path,
            chunk(10, 0.2, "openvino", 2.0), chunk(1000, 0.2, "openvino", 4.0),
            chunk(10, 0.1, "onnxruntime", 4.0), chunk(1000, 0.3, "onnxruntime", 3.0),
        )
    )  # fmt: skip
    assert figure.title == (
        "Which is fastest depends on the chunk: onnxruntime takes 1.0 % of real time with chunks of 10 ms, openvino "
        "0.020 % of real time with chunks of 1000 ms"
    )


def test_one_variant_alone_is_not_called_the_fastest(tmp_path):
    (figure,) = speech_figures(group_of(tmp_path, chunk(10, 0.4), chunk(20, 0.4)))
    assert figure.title == (
        "eager takes 4.0 % of real time with chunks of 10 ms and 2.0 % of real time with chunks of 20 ms"
    )


def test_each_batch_has_its_own_figure(tmp_path):
    figures = speech_figures(
        group_of(
            tmp_path, *(chunk(size, 1.0, batch=batch) for size in (10, 100) for batch in (1, 8)), chunk(10, 1, batch=2)
        )
    )
    assert len({figure.name for figure in figures}) == 2
    assert [{row["batch"] for row in figure.spec["datasets"]["rows"]} for figure in figures] == [{1}, {8}]


def test_clips_of_one_length_and_images_have_none(tmp_path):
    assert speech_figures(group_of(tmp_path, chunk(1000, 0.4), chunk(1000, 0.1, "openvino"))) == []
    assert speech_figures(group_of(tmp_path, record(size=128), record(size=224))) == []
    silent = [{**chunk(size, 0.4), "real_time_factor": 0.0} for size in (10, 20)]
    assert speech_figures(group_of(tmp_path, *silent)) == []


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.floats(1e-3, 1e3)), min_size=2, max_size=6, unique_by=lambda one: one[0]
    )
)
def test_the_band_holds_the_line(tmp_path_factory, measured):
    group = group_of(tmp_path_factory.mktemp("speech"), *(chunk(size, call_ms) for size, call_ms in measured))
    (figure,) = speech_figures(group)
    for row in figure.spec["datasets"]["rows"]:
        assert row["factor_low"] <= row["factor"] <= row["factor_high"]
        assert row["factor_high"] == pytest.approx(1.1 * row["factor"], rel=1e-5)  # one standard deviation
        assert row["factor_low"] == pytest.approx(0.9 * row["factor"], rel=1e-5)


def firmware(recipe="pruned", backend="avr", cycles=40_000, flash=16_128, sram=1_024, **more):
    return record(
        workload="tinychat_text", data="z80ai", recipe=recipe, backend=backend, unit="chars", size=64, clock="cycles",
        speedup=2.0, speedup_low=2.0, speedup_high=2.0, chip="atmega328p", flash_bytes=flash, sram_bytes=sram,
        stack_bytes=28, cycles_per_character=cycles, most_cycles_of_a_character=1.5 * cycles, frequency_hz=16e6,
        quality="next_char", quality_next_char=0.65, quality_next_char_low=0.63, quality_next_char_high=0.67,
        case=f"{recipe}-{backend}",
    ) | more  # fmt: skip


def test_the_limits_are_those_of_the_chip_that_is_built_for():
    assert (CHIP.lower(), MEMORY_BYTES) == (UNO.name, {"flash": UNO.flash_bytes, "SRAM": UNO.sram_bytes})


def test_memory_is_told_as_a_share_of_the_chip(tmp_path, capfd):
    memory, _ = firmware_figures(group_of(tmp_path, firmware(), firmware(backend="avr_plain", sram=1_536, flash=8_064)))
    assert (
        memory.title == "Every network fits on an ATmega328P: the largest take 50 % of the flash and 75 % of the SRAM"
    )
    assert "pruned on avr: 16,128 bytes of flash, 50 %" in memory.alt
    assert {(row["variant"], row["memory"]): row["share"] for row in memory.spec["datasets"]["rows"]} == {
        ("pruned on avr", "flash"): 0.5, ("pruned on avr", "SRAM"): 0.5,
        ("pruned on avr_plain", "flash"): 0.25, ("pruned on avr_plain", "SRAM"): 0.75,
    }  # fmt: skip
    compiled(memory, capfd)
    compiled(memory, capfd, rows=[])


def test_a_network_that_does_not_fit_is_the_finding(tmp_path, capfd):
    memory, _ = firmware_figures(group_of(tmp_path, firmware(), firmware("full", flash=48_384, chip="atmega1284p")))
    assert memory.title == "1 of 2 firmwares does not fit on an ATmega328P: full on avr takes 150 % of its flash"
    compiled(memory, capfd)


def test_engines_are_compared_on_the_same_network(tmp_path, capfd):
    _, cycles = firmware_figures(
        group_of(
            tmp_path,
            firmware("small", cycles=20_000), firmware("small", "avr_plain", cycles=400_000),
            firmware("large", cycles=40_000), firmware("large", "avr_plain", cycles=1_200_000),
        )
    )  # fmt: skip
    assert cycles.title == (
        "avr needs 20.0 to 30.0 times fewer cycles than avr_plain on the same network; small on avr needs the fewest "
        "cycles a character, 20,000 or 1.25 ms, with next_char 65.0 %"
    )
    assert "large on avr_plain: 1,200,000 cycles, next_char 65.0 % [63.0 %, 67.0 %]" in cycles.alt
    labels = [row["label"] for row in cycles.spec["datasets"]["rows"]]
    assert labels == ["small", "", "large", ""]  # each network once, beside its fastest engine
    compiled(cycles, capfd)
    compiled(cycles, capfd, rows=[])


def test_one_engine_alone_is_compared_with_none(tmp_path):
    _, cycles = firmware_figures(group_of(tmp_path, firmware()))
    assert cycles.title == (
        "pruned on avr needs the fewest cycles a character, 40,000 or 2.50 ms, with next_char 65.0 %"
    )


def test_what_is_missing_leaves_its_figure_out(tmp_path):
    unjudged = {name: value for name, value in firmware().items() if "quality" not in name}
    assert [figure.name.split("-")[1] for figure in firmware_figures(group_of(tmp_path, unjudged))] == ["memory"]
    unsized = {name: value for name, value in firmware().items() if name != "sram_bytes"}
    assert [figure.name.split("-")[1] for figure in firmware_figures(group_of(tmp_path, unsized))] == ["cycles"]
    assert firmware_figures(group_of(tmp_path, firmware(clock="wall"))) == []
    assert firmware_figures(group_of(tmp_path, record(clock="cycles"))) == []


@pytest.mark.parametrize("make", [
    lambda: [chunk(size, 1.0, backend=HOSTILE, recipe=HOSTILE) for size in (10, 100)],
    lambda: [firmware(HOSTILE, HOSTILE, chip=HOSTILE, quality=HOSTILE, **{f"quality_{HOSTILE}": 3.0})],
])  # fmt: skip
def test_hostile_names_are_data_and_cut_in_titles(tmp_path, capfd, make):
    group = group_of(tmp_path, *make())
    figures = speech_figures(group) + firmware_figures(group)
    assert figures
    for figure in figures:
        assert len(figure.title) < 500
        assert "\n" not in figure.title
        compiled(figure, capfd)
