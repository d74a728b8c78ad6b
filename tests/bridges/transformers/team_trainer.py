"""A team's own bridge that trains with `transformers.Trainer`, and says nothing to anybody."""

from typing import Any

from manybridge.bridge import Bridge, command


class TeamBridge(Bridge):
    """Fits a model to a few tokens."""

    name = "team"

    @command("fit")
    def fit(self, model: str, steps: int) -> dict[str, Any]:
        """Train and return the last step."""
        import tempfile

        import torch
        from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

        torch.set_num_threads(1)
        rows = [{"input_ids": [n, n + 1, n + 2], "labels": [n, n + 1, n + 2]} for n in range(16)]
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, max_steps=steps, logging_steps=2, save_strategy="no", report_to="none", use_cpu=True
            )
            trainer = Trainer(AutoModelForCausalLM.from_pretrained(model), arguments, train_dataset=rows)
            trainer.train()
        return {"step": trainer.state.global_step}
