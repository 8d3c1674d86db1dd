"""What `make bench-scale` measures: real jobs whose own memory does not grow with the corpus."""

from benchmarks.scale import measure, summary, texts

MIB = 1 << 20


def test_ten_times_the_texts_take_no_more_memory() -> None:
    """18,000 more texts have 58 MB of logits, probabilities and supervision, all of it on disk."""
    few, many = measure(2_000, 20_000, method={"name": "muka", "mc_samples": 0}, batch_size=256, labels=100)
    assert (few["texts"], many["texts"]) == (2_000, 20_000)
    assert many["peak_anonymous_bytes"] - few["peak_anonymous_bytes"] < 40 * MIB
    assert many["peak_rss_bytes"] > many["peak_anonymous_bytes"] > 50 * MIB


def test_texts_differ() -> None:
    assert len(set(texts(30_000))) == 30_000


def test_flatness_is_between_the_medians_of_the_sizes() -> None:
    runs = [
        {"texts": n, "seconds_per_1000": seconds, "peak_rss_bytes": 1, "peak_anonymous_bytes": 1}
        for n, seconds in ((10, 1.0), (10, 9.0), (10, 1.0), (20, 1.2), (20, 1.2), (20, 0.1))
    ]
    told = summary(runs)
    assert told["seconds_per_1000"] == {"10": 1.0, "20": 1.2}
    assert round(told["flatness"], 6) == 0.2
