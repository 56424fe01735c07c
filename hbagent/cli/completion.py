"""Completions for shells, written from the tree of commands. Pure.

Each is one file without any dependency, not even on hbagent itself: all words are in it, and the names of nodes are
read from the cache that `names_cache` keeps. A name from there is only ever compared and shown, never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .tree import Argument, Command

SHELLS = ("bash", "zsh", "fish")
_HEAD = "# Completion of hbagent; made by: hbagent completion"


def script(shell: str, commands: Sequence[Command]) -> str:
    """The whole file for one of `SHELLS`."""
    lines = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)
    return "\n".join([f"{_HEAD} {shell}", *lines, ""])


def _every(commands: Sequence[Command]) -> Iterator[Command]:
    for command in commands:
        yield command
        yield from _every(command.below)


def _words(command: Command) -> list[str]:
    """What may stand next in a command: its own options, and the words below it."""
    below = [one.name.rpartition(" ")[2] for one in command.below]
    return [*below, *(word for option in command.options for word in option.words)]


def _values_of(command: Command) -> tuple[str, ...]:
    """Choices of the values that stand without a word."""
    return tuple(choice for value in command.values for choice in value.choices)


# ---- bash ------------------------------------------------------------------------------------------------

_BASH_FRAME = """
_hbagent_offer() {
    local word
    for word in "$@"; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

_hbagent_nodes() {
    local name file="${XDG_CACHE_HOME:-$HOME/.cache}/hbagent/nodes"
    [[ -r $file ]] || return
    while IFS= read -r name; do
        [[ $name == "$cur"* || ${name##*/} == "$cur"* ]] && COMPREPLY+=("$name")
    done < "$file"
}

_hbagent_files() {
    local name
    compopt -o filenames 2>/dev/null
    while IFS= read -r name; do
        COMPREPLY+=("$name")
    done < <(compgen -f -- "$cur")
}

_hbagent() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= at
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$path ${COMP_WORDS[at]}" in
            @PATHS@) path="${path:+$path }${COMP_WORDS[at]}" ;;
        esac
    done
    case "$path:$prev" in
@VALUES@
    esac
    case "$path" in
@WORDS@
    esac
}

complete -F _hbagent hbagent""".strip("\n")


def _bash(commands: Sequence[Command]) -> list[str]:
    every = list(_every(commands))
    paths = "|".join(f'"{" " * (" " not in one.name)}{one.name}"' for one in every)
    values = []
    for one in every:
        for option in one.options:
            labels = "|".join(_quoted(f"{one.name}:{word}") for word in option.words)
            if option.value:
                values.append(f"        {labels}) {_bash_action(option)}; return ;;")
    top = [one.name for one in commands] + ["--help", "--version"]
    words = [f'        "") _hbagent_offer {" ".join(map(_quoted, top))} ;;']
    for one in every:
        actions = [f"_hbagent_offer {' '.join(map(_quoted, (*_values_of(one), *_words(one))))}"]
        actions += dict.fromkeys(f"_hbagent_{value.kind}s" for value in one.values if value.kind)
        words.append(f"        {_quoted(one.name)}) {'; '.join(actions)} ;;")
    text = _BASH_FRAME.replace("@PATHS@", paths)
    return text.replace("@VALUES@", "\n".join(values)).replace("@WORDS@", "\n".join(words)).splitlines()


def _bash_action(option: Argument) -> str:
    """What completes the value of an option; ":" for one that nobody can guess."""
    if option.choices:
        return f"_hbagent_offer {' '.join(map(_quoted, option.choices))}"
    return f"_hbagent_{option.kind}s" if option.kind else ":"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ---- zsh -------------------------------------------------------------------------------------------------

_ZSH_NODES = """
_hbagent_nodes() {
    local file="${XDG_CACHE_HOME:-$HOME/.cache}/hbagent/nodes"
    local -a names
    [[ -r $file ]] && names=("${(@f)$(<$file)}")
    compadd -M 'l:|=*' -a names
}""".strip("\n")


def _zsh(commands: Sequence[Command]) -> list[str]:
    lines = ["#compdef hbagent", "", *_ZSH_NODES.splitlines(), ""]
    for one in _every(commands):
        lines += [*_zsh_function(one), ""]
    lines += ["_hbagent() {", "    local context state line", "    local -A opt_args"]
    lines += ["    _arguments -C '(-)'{-h,--help}'[show help]' '(-)--version[show the version]' \\"]
    lines += ["        '1: :->command' '*:: :->rest'", *_zsh_below("", commands), "}", ""]
    # Loaded by the completion system as a function of a file, or read by a startup file.
    lines += ["if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then", '    _hbagent "$@"']
    return [*lines, "else", "    compdef _hbagent hbagent", "fi"]


def _zsh_name(name: str) -> str:
    return f"_hbagent_{name.replace(' ', '_').replace('-', '_')}_"


def _zsh_function(command: Command) -> list[str]:
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    if command.below:
        lines = ["    local context state line", "    local -A opt_args"]
        specs += ["'1: :->command'", "'*:: :->rest'"]
        body = [f"    _arguments -C {' '.join(specs)}", *_zsh_below(command.name, command.below)]
        return [f"{_zsh_name(command.name)}() {{", *lines, *body, "}"]
    specs += [
        f"'{'*' if value.many else ''}:{_zsh_text(value.value)}:{_zsh_action(value)}'" for value in command.values
    ]
    if command.takes_rest:
        specs.append("'*:: :_normal'")
    return [f"{_zsh_name(command.name)}() {{", f"    _arguments {' '.join(specs)}", "}"]


def _zsh_below(name: str, commands: Sequence[Command]) -> list[str]:
    told = " ".join(_quoted(f"{one.name.rpartition(' ')[2]}:{one.line.replace(':', ' -')}") for one in commands)
    lines = [
        "    case $state in",
        "    command)",
        f"        local -a found=({told})",
        "        _describe command found",
    ]
    lines += ["        ;;", "    rest)", "        case $words[1] in"]
    lines += [f"        {one.name.rpartition(' ')[2]}) {_zsh_name(one.name)} ;;" for one in commands]
    return [*lines, "        esac", "        ;;", "    esac"]


def _zsh_option(option: Argument) -> Iterator[str]:
    help = _zsh_text(option.help)
    value = f":{_zsh_text(option.value)}:{_zsh_action(option)}" if option.value else ""
    again = "*" if option.many else f"({' '.join(option.words)})"
    for word in option.words:
        yield f"'{again}{word}[{help}]{value}'"


def _zsh_action(argument: Argument) -> str:
    if argument.choices:
        return f"({' '.join(_zsh_text(choice) for choice in argument.choices)})"
    return {"file": "_files", "node": "_hbagent_nodes"}.get(argument.kind, " ")


def _zsh_text(text: str) -> str:
    """Text within a quoted specification of `_arguments`."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("'", "'\\''")
    for character in ":[]":
        plain = plain.replace(character, f"\\{character}")
    return plain


# ---- fish ------------------------------------------------------------------------------------------------

_FISH_NODES = """
function __hbagent_nodes
    set -l base $XDG_CACHE_HOME
    test -n "$base"; or set base $HOME/.cache
    test -r $base/hbagent/nodes; and cat $base/hbagent/nodes
end""".strip("\n")


def _fish(commands: Sequence[Command]) -> list[str]:
    lines = ["", *_FISH_NODES.splitlines(), "", "complete -c hbagent -f"]
    lines.append("complete -c hbagent -n __fish_use_subcommand -l version -d 'Show the version'")
    for one in commands:
        lines.append(f"complete -c hbagent -n __fish_use_subcommand -a {one.name} -d {_fish_quoted(one.line)}")
    for one in _every(commands):
        lines += _fish_command(one)
    return lines


def _fish_command(command: Command) -> Iterator[str]:
    when = f"__fish_seen_subcommand_from {command.name.replace(' ', '; and __fish_seen_subcommand_from ')}"
    start = f"complete -c hbagent -n {_fish_quoted(when)}"
    for below in command.below:
        yield f"{start} -a {below.name.rpartition(' ')[2]} -d {_fish_quoted(below.line)}"
    for option in command.options:
        names = [f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in option.words]
        yield f"{start} {' '.join(names)}{_fish_action(option)} -d {_fish_quoted(option.help)}"
    for value in command.values:
        if value.choices or value.kind:
            yield f"{start}{_fish_action(value)}"


def _fish_action(argument: Argument) -> str:
    if not argument.value:
        return ""
    need = " -r" if argument.words else ""
    if argument.choices:
        return f"{need} -f -a {_fish_quoted(' '.join(argument.choices))}"
    return need + {"file": " -F", "node": " -f -a '(__hbagent_nodes)'"}.get(argument.kind, " -f" if need else "")


def _fish_quoted(text: str) -> str:
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
