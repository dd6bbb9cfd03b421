"""Train the embedded model.

    python -m training.train --run training/runs/main --seconds 6600     the whole training
    python -m training.train --run training/runs/main --resume           go on after a break
    python -m training.train --smoke --seconds 60                        does the loss fall? (CI)

The learning rate follows the used share of the time budget: a slower machine sees fewer tokens, but
ends with a finished schedule.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from training.packing import Batch, BatchSource
from training.tiny_llama import ModelShape, TinyLlama
from training.tokenizer import Encoder, load_tokenizer, train_tokenizer

SEED = 20
MUON_RATE = 1.2e-3
ADAM_RATE = 1e-3
WARMUP_STEPS = 40
FINAL_RATE_SHARE = 0.02
LONG_CONTEXT_SHARE = 0.06
LOG_EVERY_STEPS = 20
SAVE_EVERY_SECONDS = 300.0
SMOKE_ROWS, SMOKE_LENGTH = 4, 128
SMOKE_LOSS_SHARE = 0.7


@dataclass
class Progress:
    """How far a run is; what a checkpoint keeps beside the weights."""

    step: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    used_seconds: float = 0.0
    next_document: int = 0
    losses: list[float] = field(default_factory=list)


def make_optimizers(model: TinyLlama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.blk.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [model.token_embd.weight], "weight_decay": 0.01},
                {"params": norms, "weight_decay": 0.0},
            ],
            lr=ADAM_RATE,
            betas=(0.9, 0.98),
        ),
    ]


def rate_share(step: int, used_share: float) -> float:
    """Factor of the learning rate: a linear warm-up, then a cosine over the time budget."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(used_share, 1.0)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (
        FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine
    )


def loss_of(model: TinyLlama, batch: Batch, use_bf16: bool) -> Tensor:
    """Mean cross entropy over the learnt positions only; the others get no logits at all."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bf16):
        logits = model.logits(model.hidden(batch.inputs)[batch.learnt])
    return F.cross_entropy(logits.float(), batch.targets[batch.learnt])


class Trainer:
    """One run in one folder: tokenizer.json, checkpoint.pt, log.jsonl."""

    def __init__(self, run: Path, arguments: argparse.Namespace) -> None:
        self.run = run
        self.arguments = arguments
        run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(SEED)
        torch.set_num_threads(arguments.threads)
        self.tokenizer = self._tokenizer()
        self.model = TinyLlama(ModelShape(vocab_size=self.tokenizer.get_vocab_size()))
        self.optimizers = make_optimizers(self.model)
        self.rates = [group["lr"] for opt in self.optimizers for group in opt.param_groups]
        self.progress = Progress()
        if arguments.resume:
            self._load()
        self.source = BatchSource(Encoder(self.tokenizer), SEED, self.progress.next_document)

    def _tokenizer(self):
        path = self.run / "tokenizer.json"
        if not path.exists():
            train_tokenizer(SEED).save(str(path))
        return load_tokenizer(path)

    @property
    def used_share(self) -> float:
        """Share of the time budget that is used up."""
        return self.progress.used_seconds / self.arguments.seconds

    def train(self) -> None:
        """Train until the budget is used up."""
        last_save = time.monotonic()
        while self.used_share < 1.0:
            started = time.monotonic()
            self._step()
            self.progress.used_seconds += time.monotonic() - started
            if self.progress.step % LOG_EVERY_STEPS == 0:
                self._log()
            if time.monotonic() - last_save > SAVE_EVERY_SECONDS:
                self.save()
                last_save = time.monotonic()
        self.save()

    def _step(self) -> None:
        is_long = self.used_share > 1.0 - LONG_CONTEXT_SHARE and self.progress.step % 4 == 0
        rows, length = (1, 4096) if is_long else (self.arguments.rows, self.arguments.length)
        batch = self.source.batch(rows, length)
        factor = rate_share(self.progress.step, self.used_share)
        groups = [group for opt in self.optimizers for group in opt.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * factor
        loss = loss_of(self.model, batch, self.arguments.bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += batch.inputs.numel()
        self.progress.learnt_tokens += int(batch.learnt.sum())
        self.progress.losses.append(loss.item())

    def _log(self) -> None:
        recent = self.progress.losses[-LOG_EVERY_STEPS:]
        entry = {
            "step": self.progress.step,
            "loss": round(sum(recent) / len(recent), 4),
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.used_seconds, 1),
            "tokens_per_second": round(self.progress.tokens / self.progress.used_seconds),
        }
        print(json.dumps(entry), flush=True)
        with (self.run / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Write the checkpoint in place of the last one."""
        self.progress.next_document = self.source.next_document
        state = {
            "shape": self.model.shape.to_dict(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": vars(self.progress),
        }
        partial = self.run / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.run / "checkpoint.pt")

    def _load(self) -> None:
        state = torch.load(self.run / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def smoke(arguments: argparse.Namespace) -> None:
    """Train from nothing for a short time, in small steps, and insist that the loss has fallen."""
    arguments.rows, arguments.length = SMOKE_ROWS, SMOKE_LENGTH
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), arguments)
        trainer.train()
    losses = trainer.progress.losses
    first, last = sum(losses[:3]) / 3, sum(losses[-10:]) / 10
    print(
        f"loss {first:.3f} -> {last:.3f} in {len(losses)} steps, {trainer.progress.tokens} tokens"
    )
    if not last < SMOKE_LOSS_SHARE * first:
        raise SystemExit(f"the loss did not fall below {SMOKE_LOSS_SHARE:.0%} of its start")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--run", type=Path, default=Path("training/runs/main"))
    parser.add_argument("--seconds", type=float, default=6600.0, help="training time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    arguments = parse_arguments()
    if arguments.smoke:
        smoke(arguments)
    else:
        Trainer(arguments.run, arguments).train()


if __name__ == "__main__":
    main()
