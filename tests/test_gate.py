"""The promise of `gate.py`: a journal at its limit takes no new job, says when it will, and takes it then."""

from live_jobs import admit, make_job, opened, request
from virtual_loop import in_virtual_time

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.gate import Gate
from rkllm_mqtt.runtime.slot import Slot

LIMITED = Config.model_validate({"limits": {"journal_mb": 1}})
CATALOGUE = configured_catalogue(LIMITED)


@in_virtual_time
async def test_a_journal_at_its_limit_is_told_with_a_code_and_when_it_has_room(tmp_path):
    async with opened(tmp_path) as journal:
        gate = Gate(Slot(LIMITED, CATALOGUE, lambda: None), CATALOGUE, journal, LIMITED, lambda: 42.04)
        jobs = []
        while journal.used_bytes < 1 << 20:
            assert gate.refusal("demo") is None
            jobs.append(await admit(journal, make_job(request("x" * 100_000))))
        assert 5 < len(jobs) < 15
        fault = gate.refusal("demo")
        assert (fault.code, fault.retryable, fault.retry_after_s) == (Code.INTERNAL, True, 42.0)
        assert "1 MB" in fault.message
        assert "limits.journal_mb" in fault.hint
        # Answers of what was taken are stored all the same, and what is removed makes room.
        for job in jobs:
            await journal.claim(job.seq, 1)
            await journal.finish(job.seq, JobEvent.COMPLETED, b"{}", Delivery.NONE)
        assert gate.refusal("demo") is not None
        assert await journal.purge(journal.now() + 1) == len(jobs)
        assert gate.refusal("demo") is None
