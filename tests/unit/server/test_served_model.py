from __future__ import annotations

import pytest

from rocmforge.config import ServerConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InternalError, InvalidModelFile, IoError, ModelLoading, ModelNotFound
from rocmforge.server.served_model import ServedModel


def served(path=EMBEDDED_MODEL_PATH, **config) -> ServedModel:
    return ServedModel(str(path), ServerConfig(**config))


async def test_it_reads_tokenizer_and_template():
    model = served()
    with pytest.raises(ModelLoading):
        _ = model.tokenizer
    await model.load()
    assert model.tokenizer.decode(model.tokenizer.encode("Hello")) == "Hello"
    prompt = await model.templates.render([{"role": "user", "content": "Hi"}])
    assert "Hi" in prompt
    assert model.facts["has_chat_template"] is True
    await model.close()


@pytest.mark.parametrize(
    "name", [None, "", "rocmforge-tiny", "rocmforge-tiny.gguf", "embedded", "me"]
)
def test_names_it_answers_to(name):
    served(served_model_name="me").check_name(name)


def test_names_it_does_not_answer_to(tmp_path):
    with pytest.raises(ModelNotFound):
        served().check_name("gpt-4o")
    with pytest.raises(ModelNotFound):
        served(tmp_path / "other.gguf").check_name("embedded")


async def test_what_went_wrong_is_kept_for_those_who_ask(tmp_path, monkeypatch):
    for content, kind in ((None, IoError), (b"no model", InvalidModelFile)):
        path = tmp_path / "model.gguf"
        if content is not None:
            path.write_bytes(content)
        model = served(path)
        await model.load()
        with pytest.raises(kind):
            _ = model.tokenizer
        with pytest.raises(kind):
            _ = model.templates

    def defect(self):
        raise ZeroDivisionError

    monkeypatch.setattr(ServedModel, "_read", defect)
    model = served()
    await model.load()
    with pytest.raises(InternalError, match="the log says why"):
        _ = model.tokenizer


async def test_another_template_replaces_the_models_own(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    model = served(chat_template=path)
    await model.load()
    assert await model.templates.render([{"role": "user", "content": "a"}]) == "[a]"
    await model.close()
    missing = served(chat_template=tmp_path / "none.jinja")
    await missing.load()
    with pytest.raises(IoError, match=r"none\.jinja"):
        _ = missing.templates
