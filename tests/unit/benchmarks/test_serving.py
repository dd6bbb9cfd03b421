"""benchmarks/serving.py and load_generator.py: numbers by hand, and streams in pieces."""

from __future__ import annotations

import json

import pytest
from load_generator import BadAnswer, read_answer, request_bytes, timed_events
from serving import Turn, ratio_of, summarize

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def turn(seconds, arrivals, n_tokens=10, **more):
    return Turn(seconds=seconds, n_tokens=n_tokens, arrivals_s=arrivals, **more)


def chunk(*events):
    data = b"".join(b"data: " + event + b"\n\n" for event in events)
    return b"%x\r\n%s\r\n" % (len(data), data)


def text(piece, **more):
    return json.dumps({"choices": [{"text": piece}]} | more).encode()


USAGE = json.dumps(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }
).encode()


def test_a_summary_by_hand():
    fast = turn(1.0, [[0.1, 0.2, 0.4], [0.3]], cpu_s={"server": 0.01})
    slow = turn(2.0, [[0.5]], cpu_s={"server": 0.03}, n_prompt_tokens=[4, 6], n_cached_tokens=[2])
    summary = summarize([fast, slow, slow])
    assert summary.tokens_per_s == pytest.approx(5.0)
    # First pieces after 0.1, 0.3, 0.5 and 0.5 s; gaps of 0.1 and 0.2 s.
    assert summary.ttft_p50_ms == pytest.approx(400)
    assert summary.ttft_p95_ms == pytest.approx(500)
    assert summary.gap_p50_ms == pytest.approx(150)
    assert summary.gap_p95_ms == pytest.approx(195)
    assert summary.with_text == pytest.approx(0.1)
    assert summary.cpu_us_per_token == {"server": pytest.approx(3000)}
    assert summary.prompt_tokens == pytest.approx(5)
    assert summary.cached_tokens == pytest.approx(2)


def test_answers_of_one_piece_have_no_gaps():
    summary = summarize([turn(1.0, [[0.1], []])])
    assert summary.gap_p50_ms == summary.gap_p95_ms == 0
    assert summary.ttft_p50_ms == pytest.approx(100)


def test_ratios_are_taken_turn_by_turn():
    # The machine ran at half its speed in the second turn; the ratio is 2 all the same.
    ours = [turn(1.0, []), turn(2.0, []), turn(1.0, [])]
    theirs = [turn(2.0, []), turn(4.0, []), turn(1.0, [])]
    ratio = ratio_of(ours, theirs)
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 2.0)


def test_turns_come_in_pairs():
    with pytest.raises(ValueError):
        ratio_of([turn(1.0, [])], [])


def test_an_answer_is_read_with_its_times():
    reads = [
        (10.5, HEAD + chunk(text(""))),
        (11.0, chunk(text("a"), text("b"))),
        (12.0, chunk(USAGE, b"[DONE]")),
    ]
    answer = read_answer(reads, start_s=10.0)
    assert answer.times_s == [1.0, 1.0]
    assert answer.end_s == 2.0
    assert (answer.n_tokens, answer.n_prompt_tokens, answer.n_cached_tokens) == (2, 5, 3)


def test_chat_deltas_count_too():
    event = json.dumps({"choices": [{"delta": {"content": "x"}}]}).encode()
    answer = read_answer([(1.0, HEAD + chunk(event, b"[DONE]"))], start_s=0.0)
    assert answer.times_s == [1.0]


def test_a_stream_may_be_cut_anywhere():
    stream = HEAD + chunk(text("a")) + chunk(text("\n\nb")) + chunk(USAGE, b"[DONE]")
    whole = [event for _, event in timed_events([(0.0, stream)])]
    assert len(whole) == 4
    for size in (1, 2, 3, 7):
        reads = [(float(at), stream[at : at + size]) for at in range(0, len(stream), size)]
        events = timed_events(reads)
        assert [event for _, event in events] == whole
        assert [time_s for time_s, _ in events] == sorted(time_s for time_s, _ in events)


def test_pings_are_no_events():
    assert timed_events([(0.0, HEAD + b"8\r\n: ping\n\n\r\n")]) == []


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (b"HTTP/1.1 503 No\r\n\r\n{}", "503"),
        (HEAD + chunk(text("a")), "DONE"),
        (HEAD + chunk(b'{"error":{"message":"full"}}', b"[DONE]"), "full"),
    ],
)
def test_what_is_no_complete_answer_is_refused(stream, what):
    with pytest.raises(BadAnswer, match=what):
        read_answer([(0.0, stream)], start_s=0.0)


def test_a_request_asks_the_server_to_close():
    head, _, payload = request_bytes("h", "/v1/completions", {"prompt": "ü"}).partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"Content-Length: %d" % len(payload) in head
    assert json.loads(payload) == {"prompt": "ü"}
