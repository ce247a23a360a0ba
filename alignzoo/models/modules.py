"""Modules from settings: the policy, its adapter, and whatever other kinds of network the roles ask for."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from alignzoo.common.noise import generator
from alignzoo.contracts import Kind, Role
from alignzoo.errors import UserError, first_line, nearest, require
from alignzoo.models import rotary
from alignzoo.models.forward.padded import inner
from alignzoo.models.loading import Location
from alignzoo.models.networks import Headed, HeadedNetwork, Network
from alignzoo.settings import Model, Peft

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    AutoClass = type[_BaseAutoModelClass]

DROPOUTS = (
    "dropout", "dropout_rate", "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "activation_dropout", "classifier_dropout", "summary_first_dropout",
)  # fmt: skip

SEEN = 1e-5  # of the largest logit: the same shapes round the same way


def tokenizer(settings: Model) -> PreTrainedTokenizerBase:
    """The tokenizer of `settings.tokenizer`, else the one beside the model, else the embedded byte-level one."""
    from alignzoo.models import tokenizers

    path = settings.tokenizer or settings.path
    if path is None:
        return tokenizers.byte_level()
    loaded = location(settings, path, "model.tokenizer" if settings.tokenizer else "model.path").tokenizer()
    if loaded.eos_token is None and loaded.sep_token is not None:
        loaded.eos_token = loaded.sep_token  # encoders end every text with it
    tokenizers.check(loaded)
    return loaded


def location(settings: Model, path: str | None = None, key: str = "model.path") -> Location:
    """Where `path` is, the value of `key`; by default, the model's own."""
    return Location.of(str(path or settings.path), key, settings.trust_remote_code)


def config(settings: Model, vocabulary: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The model's config: that of the checkpoint, or a fresh one of `settings.config` for this tokenizer. Dropout is what
    settings say. Raises UserError for a tokenizer with more tokens than the checkpoint's table has rows.
    """
    if settings.path:
        architecture = location(settings).config()
        _check_table(settings, architecture.get_text_config().vocab_size, vocabulary)
    else:
        architecture = _fresh(dict(settings.config), vocabulary)
    for name in ("num_hidden_layers", "num_layers", "n_layer"):
        layers = getattr(architecture, name, 1)
        require(layers >= 1, f"model.config.{name}", layers, ">= 1")
    for name in DROPOUTS:
        if getattr(architecture, name, None) is not None:
            setattr(architecture, name, settings.dropout)
    return architecture


def _check_table(settings: Model, rows: int, words: PreTrainedTokenizerBase) -> None:
    """Raises UserError where text may have tokens for which the model's table has no row. Special tokens that neither end nor
    open a text, nor stand in the chat template, are none of text: families bring some that a checkpoint never had."""
    beyond = [token for token, number in words.get_vocab().items() if number >= rows]
    ends, template = (words.bos_token, words.eos_token), str(words.chat_template)
    of_text = [t for t in beyond if t not in words.all_special_tokens or t in ends or t in template]
    if of_text:
        tokens = max(words.get_vocab().values()) + 1
        raise UserError(
            f"the tokenizer has {tokens} tokens, {min(of_text)!r} among them, and the table of model.path={settings.path} "
            f"{rows} rows: take its own"
        )


def context_length(settings: Model, config: PretrainedConfig) -> int:
    """How many tokens prompt and completion may have together: by default as many as one way to see positions is for."""
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if settings.context_length and longest and settings.context_length > longest and not config.is_encoder_decoder:
        raise UserError(f"model.context_length={settings.context_length} is more than the model's {longest} positions")
    return settings.context_length or rotary.border(config) or longest or 2048


def policy(settings: Model, config: PretrainedConfig, seed: int) -> nn.Module:
    """The policy's module, in evaluation mode, its fresh weights a function of the seed."""
    module = network(_language_model(config), settings, config, seed)
    return _causal(module, f"model.path={settings.path}" if settings.path else "model.config")


def _language_model(config: PretrainedConfig) -> AutoClass:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


@torch.no_grad()
def _causal(module: PreTrainedModel, where: str) -> PreTrainedModel:
    """The module. Raises UserError for a network that sees later tokens, as encoders do: what it says of a token is no
    probability given those before."""
    if not module.config.is_encoder_decoder:
        ids = torch.arange(1, 7)[None] % module.config.get_text_config().vocab_size
        first, second = (module(input_ids=row).logits[0, :-1] for row in (ids, torch.cat([ids[:, :-1], ids[:, :1]], 1)))
        if (first - second).abs().max() > SEEN * first.abs().max():
            raise UserError(f"{where} is a {type(module).__name__} that sees later tokens: it can't write. Take a decoder")
    return module


def network(kind: AutoClass, settings: Model, config: PretrainedConfig, seed: int, trunk: bool = False) -> PreTrainedModel:
    """The network of the class `kind`, in evaluation mode: from `settings.path`, its `trunk` alone, or fresh. Fresh weights are
    a function of the seed. Raises UserError."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if settings.path:
            module = location(settings).network(kind, settings.fresh, trunk, config=config, **_options(settings))
        else:
            try:
                module = kind.from_config(config, **_options(settings))
            except (RuntimeError, ValueError, ArithmeticError, ImportError) as error:
                raise UserError(f"model.config makes no network of {config.model_type}: {first_line(error)}") from error
    rotary.settle(module, settings.context_length)
    if settings.gradient_checkpointing:
        checkpoint_activations(module)
    return module.eval()


def _options(settings: Model) -> dict[str, Any]:
    attention = None if settings.attention == "auto" else settings.attention
    return {"dtype": getattr(torch, settings.dtype.value), "attn_implementation": attention}


def checkpoint_activations(module: nn.Module) -> None:
    """Recompute activations in the backward pass; the method's name changed within transformers 5."""
    enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
    cast(Callable[[], None], enable)()


def adapted(module: nn.Module, settings: Peft, seed: int) -> nn.Module:
    """The module with LoRA adapters, or itself where they are off. Raises UserError where no module has the names given."""
    if not settings.enabled:
        return module
    from peft import LoraConfig, get_peft_model

    network = inner(module)
    task = "SEQ_2_SEQ_LM" if network.config.is_encoder_decoder else "CAUSAL_LM" if network.can_generate() else "SEQ_CLS"
    # a single name as a string would be a pattern for whole paths
    targets = settings.target_modules if settings.target_modules == "all-linear" else settings.target_modules.split(",")
    lora = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets, task_type=task
    )  # fmt: skip
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft looks up what transformers has renamed
        warnings.filterwarnings("ignore", "Model (has|with) `tie_word_embeddings")  # merging takes care of it
        torch.manual_seed(seed)
        try:
            return cast(nn.Module, get_peft_model(network, lora))
        except ValueError as error:
            wanted = f"peft.target_modules={settings.target_modules}"
            raise UserError(f"{wanted} does not fit the model: {first_line(error)}") from error


def frozen(module: nn.Module) -> nn.Module:
    """A copy that never learns, without adapters."""
    return _plain(module).eval().requires_grad_(False)


def _plain(module: nn.Module) -> nn.Module:
    copied = copy.deepcopy(module)
    return cast(nn.Module, copied.unload()) if hasattr(copied, "unload") else copied  # type: ignore[operator]


def role_module(name: str, role: Role, start: nn.Module, path: str | None, settings: Model, seed: int = 0) -> nn.Module:
    """The module of a role other than policy and reference: `start` is the module it starts from, `path` replaces it.

    A POLICY is a language model; VALUE, SCORER and EMBEDDER are a trunk with a head of zeros, or the head alone where the
    role shares; so is ACTION_VALUE, with an output a token, and weights that are a function of the seed and the role's name.
    """
    if role.kind is Kind.POLICY:
        module = _pretrained(name, path, settings, trunk=False) if path else _plain(start)
    else:
        trunk = None
        if not role.shares:
            trunk = cast(nn.Module, (_pretrained(name, path, settings, trunk=True) if path else _plain(start)).base_model)
        under = trunk or start
        outputs = under.config.get_text_config().vocab_size if role.kind is Kind.ACTION_VALUE else 1  # type: ignore[union-attr, operator]
        with torch.random.fork_rng():
            torch.manual_seed(int(generator(seed, name).integers(2**32)))
            module = Headed(trunk, _width(under), next(under.parameters()).dtype, outputs)
    return module.eval().requires_grad_(role.trained)


def follower(leader: Network, shared: Network | None) -> Network:
    """A frozen network that begins as another; on the trunk of `shared`, where it has none."""
    network = leader.view(frozen=True)
    network.module = frozen(leader.module)
    network.trunk = network.module
    if isinstance(network, HeadedNetwork):
        network.trunk = (shared or leader).trunk if network.module.trunk is None else network.module.trunk
    return network


def check_vocabulary(
    key: str, path: str, policy: PreTrainedTokenizerBase, width: int, settings: Model, distributions: bool
) -> None:
    """Token ids are all that roles share. Raises UserError where those of the model at `path` mean other words than those of
    the tokenizer `policy`, or, where no tokenizer lies beside it, its table has another number of rows than the policy's
    `width`; where whole `distributions` are compared, the tables must be of one size in any case.
    """
    where = location(settings, path, key)
    rows = where.config().get_text_config().vocab_size
    numbers = policy.get_vocab()
    try:
        there = where.tokenizer().get_vocab()
    except UserError:
        there = numbers if rows == width else {}
    if differing := {word for word, _ in numbers.items() ^ there.items()}:
        why = f"{min(differing)!r} and {len(differing) - 1} other tokens differ" if there else f"{rows} rows, not {width}"
        raise UserError(f"{key}={path} has another vocabulary than the policy ({why}): take a model of the policy's family")
    if distributions and rows != width:
        raise UserError(f"{key}={path} has {rows} output tokens and the policy {width}: their distributions can't be compared")


def _pretrained(name: str, path: str, settings: Model, trunk: bool) -> PreTrainedModel:
    """The language model at `path`; a `trunk` is wanted without its head, which may be missing or another one."""
    where = location(settings, path, f"roles.{name}")
    config = where.config()
    module = where.network(_language_model(config), trunk=trunk, config=config, **_options(settings))
    rotary.settle(module, settings.context_length)
    return module if trunk else _causal(module, str(where))


def _width(module: nn.Module) -> int:
    return int(getattr(module.config, "hidden_size", None) or module.config.d_model)  # type: ignore[union-attr, arg-type]


def _fresh(fields: dict[str, Any], vocabulary: PreTrainedTokenizerBase) -> PretrainedConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    kind = fields.pop("model_type", None)
    if kind is None:
        raise UserError(
            "the model has neither a path nor a config: give model.path=PATH or model.config.model_type=llama (or model=small)"
        )
    ids = {n: getattr(vocabulary, n) for n in ("pad_token_id", "bos_token_id", "eos_token_id")}
    try:
        plain = AutoConfig.for_model(kind)
        keys = {*plain.to_dict(), *plain.attribute_map, "decoder_start_token_id"}
        for name in fields:  # transformers keeps any key, and reads those it knows: a misspelt one would be ignored
            if name not in keys:
                raise UserError(f"model.config.{name}: {kind} has no such setting.{nearest(name, keys)}")
        return AutoConfig.for_model(kind, **({"vocab_size": len(vocabulary)} | ids | fields))
    except (ValueError, TypeError, ArithmeticError, StrictDataclassError) as error:
        reason = first_line(error.__cause__ or error)  # a strict dataclass says it there
        raise UserError(f"model.config can't be built for model_type={kind}: {reason}") from error
