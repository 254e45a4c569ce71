"""Hand jobs to the slot: their prompts become orders, their orders runs; one, or the columns of a batch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from rkllm_mqtt.answer import Answer, Send
from rkllm_mqtt.caching.tracker import Restorable
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.readouts import check_size
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.runtime.order import LoraOrder, RunOrder
from rkllm_mqtt.runtime.run import Run
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.turn import Turn
from rkllm_mqtt.windows import Prompt

Made = tuple[Job, Prompt, RunOrder]


class Handover:
    """Makes turns of jobs."""

    def __init__(
        self,
        config: Config,
        slot: Slot,
        catalogue: Catalogue,
        orders: Orders,
        scheduler: Scheduler,
        *,
        send: Send,
        on_token: Callable[[], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: Of the daemon.
            slot: Takes the runs.
            catalogue: The models.
            orders: Makes the prompts.
            scheduler: Knows the speed of models, and follows the runs.
            send: Publishes deltas.
            on_token: Called at each frame of each run.
        """
        self._config = config
        self._slot = slot
        self._catalogue = catalogue
        self._orders = orders
        self._scheduler = scheduler
        self._send = send
        self._on_token = on_token

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config

    def submit(self, job: Job) -> Turn:
        """Hand a job to the worker; there must be room.

        Raises:
            RenderError: The conversation cannot be rendered for this model, or is too long.
        """
        prompt, order = self._orders.make(job)
        rendered = prompt.rendered
        if job.request.task == "evaluate":
            check_size(prompt.tokens, self._config.limits.logits_max_mb)
        tracker = self._scheduler.tracker
        chain = tracker.chain_of(job.request.model, order.lora, order.prompt)
        file = None
        if rendered.mode != "runtime" and order.readout is None:
            order, file = self._furnish(job, order, chain, prompt.tokens.tokens)
        cached_chars = tracker.expected(chain, file).likely
        chunks = None
        if rendered.mode != "runtime" and order.readout is None:  # else a part would be a whole message
            chunks = self._scheduler.chunks(job, order.prompt, cached_chars, rendered.specials)
        limit_s = self._first_token_limit_s(job.request.model, [order])
        answer = self._answer(job)
        order = replace(order, first_token_limit_s=limit_s, chunks=chunks)
        run = self._slot.submit(order, partial(self._take, answer))
        # What the other modes leave in the cache, nobody has said.
        return self._turn(job, prompt, answer, run, chain if order.readout is None else None, file)

    def _furnish(
        self, job: Job, order: RunOrder, chain: Chain, tokens: int
    ) -> tuple[RunOrder, Restorable | None]:
        """Return the order with the files that it loads and leaves; registered prefixes may be on disk."""
        cache, wish = self._scheduler.cache, job.request.prefix
        order, file = cache.furnish(order, chain, tokens)
        if wish is not None:
            order = cache.piggyback(order, chain, tokens, "memory" if wish.name is None else "disk")
        return order, file

    def prepare(self, job: Job, wake: Callable[[], None]) -> tuple[Prompt, RunOrder] | None:
        """Return the prompt of a job and its order; None: it is being made, and `wake` is called then.

        Raises:
            RenderError: As of `submit`.
        """
        return self._orders.make(job) if self._orders.ready(job, wake) else None

    def prime(self, job: Job, order: RunOrder, borders: Sequence[str], *, is_registered: bool) -> RunOrder:
        """Return the order of a prime run for the idle slot, complete.

        Args:
            job: A stand-in of whoever gains.
            order: The prompt and its adapter.
            borders: Strings that begin a message.
            is_registered: Its file may lie on the disk.
        """
        scheduler = self._scheduler
        tracker, cache = scheduler.tracker, scheduler.cache
        chain = tracker.chain_of(job.request.model, order.lora, order.prompt)
        tokens = scheduler.paces[job.request.model].tokenizer.estimate(order.prompt).tokens
        order, file = cache.furnish(order, chain, tokens)
        order = cache.piggyback(order, chain, tokens, "disk" if is_registered else "memory")
        chunks = scheduler.chunks(job, order.prompt, tracker.expected(chain, file).known, borders)
        limit_s = self._first_token_limit_s(job.request.model, [order])
        return replace(order, first_token_limit_s=limit_s, chunks=chunks)

    def lora_of(self, model_id: str, name: str | None) -> LoraOrder | None:
        """Return an adapter of a model; None where none is asked for.

        Raises:
            RenderError: It has none of this name any more.
        """
        return self._orders.lora_of(model_id, name)

    def submit_together(self, jobs: Sequence[Job], refuse: Callable[[Job, RenderError], None]) -> list[Turn]:
        """Hand jobs to the worker as a batch; those that do not go along wait on.

        Args:
            jobs: Of one model and one sampling.
            refuse: Takes the jobs that cannot be rendered, and why.
        """
        made: list[Made] = []
        for job in jobs:
            try:
                made.append((job, *self._orders.make(job)))
            except RenderError as exc:
                refuse(job, exc)
        if not made:
            return []
        made = self._fitting(made)
        limit_s = self._first_token_limit_s(made[0][0].request.model, [order for _, _, order in made])
        answers = [self._answer(job) for job, _, _ in made]
        runs = self._slot.submit_batch(
            [
                (replace(order, first_token_limit_s=limit_s), partial(self._take, answer))
                for (_, _, order), answer in zip(made, answers, strict=True)
            ]
        )
        return [
            self._turn(job, prompt, answer, run, None)
            for (job, prompt, _), answer, run in zip(made, answers, runs, strict=True)
        ]

    def _fitting(self, made: list[Made]) -> list[Made]:
        """Return what surely fits the window, or the first alone: one that does not fails the whole array."""
        model = self._catalogue.settings(made[0][0].request.model)
        if model is None:
            return made[:1]
        fits = [one for one in made if one[1].tokens.high < model.context_tokens]
        return fits if made[0] in fits else made[:1]

    def _first_token_limit_s(self, model_id: str, orders: Sequence[RunOrder]) -> float:
        runtime = self._config.runtime
        chars = sum(len(order.prompt) for order in orders)
        margin_s = max(runtime.abort_grace_s, runtime.stall_timeout_s)
        return self._scheduler.paces[model_id].first_token_limit_s(chars, margin_s)

    def _answer(self, job: Job) -> Answer:
        return Answer(job, self._send, interval_s=self._config.delta_interval_ms / 1000)

    def _turn(
        self,
        job: Job,
        prompt: Prompt,
        answer: Answer,
        run: Run,
        chain: Chain | None,
        file: Restorable | None = None,
    ) -> Turn:
        turn = Turn(job, run, answer, prompt.rendered, prompt.tokens, job.carried)
        job.prompt_tokens = prompt.tokens.tokens
        self._scheduler.follow(turn, chain, file)
        return turn

    def _take(self, answer: Answer, pieces: Sequence[Any], tokens: int) -> None:
        """Take the pieces of a frame; called for each token."""
        answer.take(pieces, tokens)
        self._on_token()
