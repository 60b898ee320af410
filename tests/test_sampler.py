"Samples in columns, and the widget that writes."
from itertools import count

from coursekit.sampler import sampler_widget, samples_side_by_side


def numbers(prompt, temperature, p, seed):
    "What it was asked, and then numbers without end."
    yield f" {prompt}|{temperature:g}|{p:g}|{seed} <"
    yield from map(str, count())


def test_samples_are_a_table_and_plain_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    samples_side_by_side({"<a>": "x < y", "b": "z"}, "made & shown")
    assert shown[0]["text/plain"] == "made & shown\n\n--- <a>\nx < y\n\n--- b\nz"
    assert all(part in shown[0]["text/html"] for part in ("made &amp; shown</caption>", "&lt;a&gt;</th>",
                                                          ">x &lt; y</pre>"))


def test_the_widget_writes_what_it_is_given():
    box = sampler_widget(numbers, n=12)
    prompt, (temperature, p), (seed, button), out = box.children[0], box.children[1].children, \
        box.children[2].children, box.children[3]
    assert [w.description for w in (prompt, temperature, p, seed, button)] == ["prompt", "temperature", "p", "seed",
        "write"] and not out.value
    button.click()
    assert "The  The |0.8|0.95|0 &lt;012345678910</pre>" in out.value
    prompt.value, temperature.value, p.value, seed.value = "<b>", 0.1, 0.05, 7
    button.click()
    assert "&lt;b&gt; &lt;b&gt;|0.1|0.05|7 &lt;012345678910</pre>" in out.value, "what it writes is text, not HTML"


def test_it_shows_the_text_as_it_grows():
    seen = []
    box = sampler_widget(numbers, n=25)
    box.children[3].observe(lambda change: seen.append(len(change.new)), "value")
    box.children[2].children[1].click()
    assert len(seen) == 3 and seen == sorted(seen), "after ten, twenty and all"
