"""The engine without a server, for serve.py: what HTTP is compared with."""

from __future__ import annotations

import time
from itertools import count

import numpy as np
import numpy.typing as npt
from serving import Turn
from turns import core_ns

from rocmforge.config import EngineConfig, LogConfig
from rocmforge.engine.engine import Engine
from rocmforge.engine.runner import Runner
from rocmforge.engine.start import load_runner, warm_up
from rocmforge.engine.step_plan import EngineLimits, StepPlan
from rocmforge.observe.log import configure_logging
from rocmforge.request import Request, RequestId, SamplingParams


class _TimedRunner:
    """A runner that adds up how long its steps took."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.seconds = 0.0

    @property
    def limits(self) -> EngineLimits:
        return self._runner.limits

    def run(self, plan: StepPlan) -> npt.NDArray[np.float32]:
        start_s = time.perf_counter()
        logits = self._runner.run(plan)
        self.seconds += time.perf_counter() - start_s
        return logits

    def close(self) -> None:
        self._runner.close()


class EngineAlone:
    """An engine in this process."""

    def __init__(self, config: EngineConfig) -> None:
        configure_logging(LogConfig(level="error"))
        runner = load_runner(config)
        budget = warm_up(runner, config)
        self.facts = runner.facts(0.0)
        self._runner = _TimedRunner(runner)
        self._engine = Engine(self._runner, runner.new_sampler(), config, budget=budget)
        self._ids = count()
        self._steps_s = 0.0
        self._program_s = 0.0
        self._n_steps = 0
        self._run_ns = 0
        self._wait_ns = 0

    @property
    def step_ms(self) -> float:
        """Mean time of a step in which every sequence got a token."""
        return self._steps_s / max(1, self._n_steps) * 1e3

    @property
    def outside_ms(self) -> float:
        """What of it was not the native program."""
        return (self._steps_s - self._program_s) / max(1, self._n_steps) * 1e3

    @property
    def waited(self) -> float | None:
        """Share of the runnable time without a core; None where the system does not tell."""
        total = self._run_ns + self._wait_ns
        return self._wait_ns / total if total else None

    def run(self, prompts: list[list[int]], n_answer: int) -> Turn:
        """Generate n_answer tokens after each prompt, all submitted at once."""
        run_ns, wait_ns = core_ns()
        cpu_s, start_s = time.process_time(), time.perf_counter()
        ids = [self._submit(prompt, n_answer) for prompt in prompts]
        arrivals: dict[RequestId, list[float]] = {request_id: [] for request_id in ids}
        while self._engine.has_work:
            for request_id in self._step(len(prompts)):
                arrivals[request_id].append(time.perf_counter() - start_s)
        seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        run_after, wait_after = core_ns()
        self._run_ns += run_after - run_ns
        self._wait_ns += wait_after - wait_ns
        return Turn(
            seconds=seconds,
            n_tokens=len(prompts) * n_answer,
            arrivals_s=list(arrivals.values()),
            cpu_s={"engine": cpu_s},
            n_prompt_tokens=[len(prompt) for prompt in prompts],
        )

    def _submit(self, prompt: list[int], n_answer: int) -> RequestId:
        params = SamplingParams(temperature=0.0, max_tokens=n_answer, ignore_eos=True, seed=0)
        request_id = RequestId(f"bench-{next(self._ids)}")
        self._engine.submit(Request(request_id=request_id, prompt_ids=tuple(prompt), params=params))
        return request_id

    def _step(self, n_sequences: int) -> list[RequestId]:
        """One step; the requests that got a token."""
        start_s, program_s = time.perf_counter(), self._runner.seconds
        output = self._engine.step()
        if len(output.tokens) == n_sequences:
            self._n_steps += 1
            self._steps_s += time.perf_counter() - start_s
            self._program_s += self._runner.seconds - program_s
        for failed in output.failed:
            raise failed.error.to_error()
        return [token.request_id for token in output.tokens]
