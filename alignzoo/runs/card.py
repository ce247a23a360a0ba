"""What a saved model says of itself: the README.md that model hubs show."""

from __future__ import annotations

from pathlib import Path

from alignzoo.data.encode import Encoder
from alignzoo.models.modules import location
from alignzoo.runs.results import Document
from alignzoo.setup import RunConfig

TEXT = """
# {title}

Trained with alignzoo {version}: `{algorithm}` on `{data}`, {steps} steps, seed {seed}.

- Starting from: {base}
- Licence: {licence}
- Data: {rows}
- Read as it was trained: the chat template and tokenizer are beside it; `encoder.json` says the rest.

| held out | |
|---|---|
{metrics}

```python
from transformers import pipeline

print(pipeline("{task}", model=FOLDER)({example}))
```
"""


def card(setup: RunConfig, summary: Document, encoder: Encoder | None) -> str:
    """YAML front matter as hubs read it, and text."""
    from huggingface_hub import ModelCardData

    from alignzoo import __version__

    algorithm = str(setup.choices["algorithm"])
    writes = "policy" in setup.algorithm.roles()
    task, chat = "text-generation" if writes else "text-classification", encoder and (encoder.chat or encoder.messages)
    on_hub, licence = _base(setup)
    front = ModelCardData(
        library_name="transformers", pipeline_tag=task, tags=["alignzoo", algorithm], base_model=on_hub, license=licence
    )
    question = '[{"role": "user", "content": "Hello"}]' if chat and writes else '"Hello"'
    measures = {name: value for name, value in summary["metrics"].items() if isinstance(value, int | float)}
    counts = [f"{summary['data_report'][name]:,} {name}" for name in ("train", "heldout") if summary["data_report"].get(name)]
    file = Path(str(getattr(setup.data, "path", None) or "")).name
    path = setup.model.path
    start = f"`{on_hub or Path(path).name}`" if path else f"fresh weights (`model={setup.choices['model']}`)"
    text = TEXT.format(
        title=f"{algorithm} from {start.strip('`')}", version=__version__, algorithm=algorithm, data=setup.choices["data"],
        steps=summary["steps"], seed=setup.seed, task=task, example=question, base=start,
        licence=licence or "that of what it starts from and was trained on, which is not known here",
        rows=", ".join([f"`{file or setup.choices['data']}`", *counts]),
        metrics="\n".join(f"| {name} | {value:.4g} |" for name, value in measures.items()) or "| nothing | |",
    )  # fmt: skip
    return f"---\n{front.to_yaml()}\n---\n{text}"


def _base(setup: RunConfig) -> tuple[str | None, str | None]:
    """The hub's name of what training starts from, and its licence as its own card says it; None where there is none."""
    from huggingface_hub import ModelCard
    from transformers.utils import cached_file

    if not setup.model.path:
        return None, None
    path = location(setup.model).path
    file = cached_file(
        path, "README.md", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    licence = ModelCard(Path(file).read_text("utf-8"), ignore_metadata_errors=True).data.get("license") if file else None
    return None if Path(path).exists() else path, licence
