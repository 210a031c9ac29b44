"""TextWorld games (Côté et al. 2018, arXiv 1806.11532), generated on this machine.

`textworld:GAME?option=value` takes the challenges of TextWorld (tw-coin_collector,
tw-treasure_hunter, tw-simple, tw-cooking) with the options of its `tw-make`, and three more:
`games` (how many different games a split has; without it, one for each seed), `commands` (whether
an observation lists the possible commands) and `reward` (`success`: 1 for winning; `own`: the
points of the game). A command that the game does not list as possible is invalid.

Games are compiled once, in a few seconds, and kept in the cache folder. An observation is what
the game says, so equal observations need not be equal states.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from layerpick.training.environments.base import TextWorld, WorldStep
from layerpick.training.episodes.trajectory import hash_text
from layerpick.training.errors import LayerpickError, MissingExtraError
from layerpick.training.files import cache_folder

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "tw-coin_collector": {"level": 3},
    "tw-treasure_hunter": {"level": 1},
    "tw-simple": {"rewards": "balanced", "goal": "detailed"},
}
"""Options that TextWorld insists on, where a person gives none."""


def load_textworld(name: str, options: Mapping[str, Any]) -> TextWorld:
    """The world of `textworld:GAME`. Raises LayerpickError if it or an option is unknown."""
    try:
        from textworld.challenges import CHALLENGES
    except ImportError as error:
        raise MissingExtraError(f"The environment '{name}'", "textworld") from error
    game = name.partition(":")[2]
    if game not in CHALLENGES:
        raise LayerpickError(
            f"TextWorld has no game '{game}'; write one of "
            f"{', '.join(f'textworld:{known}' for known in sorted(CHALLENGES))}."
        )
    own = {**DEFAULTS.get(game, {}), **options}
    games = own.pop("games", None)
    commands = own.pop("commands", True)
    reward = own.pop("reward", "success")
    if not (games is None or (type(games) is int and games > 0)):
        raise LayerpickError(f"The option games={games} of '{name}' must be a positive number.")
    if type(commands) is not bool:
        raise LayerpickError(f"The option commands={commands} of '{name}' must be true or false.")
    if reward not in ("success", "own"):
        raise LayerpickError(f"The option reward={reward} of '{name}' must be success or own.")
    parser = _Parser(prog=name)
    CHALLENGES[game][2](parser)
    settings = vars(parser.parse_args(_arguments(own)))
    return TextWorldGame(game, settings, games=games, commands=commands, reward=reward)


class TextWorldGame(TextWorld):
    """One TextWorld challenge; the seed decides the game."""

    rules = (
        "You play a text adventure. Answer with one command, such as: go north, open chest, "
        "take coin, inventory."
    )
    turns = 20

    def __init__(
        self,
        game: str,
        settings: Mapping[str, Any],
        *,
        games: int | None = None,
        commands: bool = True,
        reward: Literal["success", "own"] = "success",
    ):
        self._game = game
        self._settings = dict(settings)
        self._games = games
        self._commands = commands
        self._reward = reward
        self._env: Any = None
        self._state: Any = None
        self._observation = ""

    def reset(self, seed: int) -> str:
        """Generate the seed's game, unless it is in the cache, and start it."""
        import textworld

        self.close()
        if self._games:
            seed %= 2 * self._games  # an even seed stays even
        wanted = ("objective", "description", "admissible_commands", "won", "lost", "score")
        infos = textworld.EnvInfos(**dict.fromkeys(wanted, True))
        self._env = textworld.start(str(self._compiled(seed)), infos)
        self._env.seed(seed)
        self._state = self._env.reset()
        return self._observe(f"{self._state.objective}\n\n{self._state.description}")

    def step(self, action: str) -> WorldStep:
        """Give the game a command."""
        command = possible(self.read(action), self._state.admissible_commands)
        if command is None:
            return WorldStep(self._observation, 0.0, done=False, valid=False)
        before = self._state.score
        self._state, score, done = self._env.step(command)
        won = bool(self._state.won)
        reward = float(score - before) if self._reward == "own" else float(won)
        return WorldStep(self._observe(self._state.feedback), reward, done)

    def close(self) -> None:
        """End the game."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observe(self, text: str) -> str:
        commands = self._state.admissible_commands if self._commands else ()
        self._observation = observation(text, commands)
        return self._observation

    def _compiled(self, seed: int) -> Path:
        """The game's file, made whole or not at all."""
        import textworld

        options = json.dumps([self._game, self._settings], sort_keys=True)
        games = cache_folder() / "textworld" / textworld.__version__ / hash_text(options)
        folder = games / str(seed)
        if not folder.is_dir():
            try:
                games.mkdir(parents=True, exist_ok=True)
                self._compile(seed, folder)
            except OSError as error:
                raise LayerpickError(f"Cannot write {folder}: {error.strerror}.") from error
        return folder / "game.z8"

    def _compile(self, seed: int, folder: Path) -> None:
        import textworld
        from textworld.challenges import CHALLENGES
        from textworld.generator import compile_game

        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            options = textworld.GameOptions()
            options.seeds = seed
            options.path = str(temporary / "game.z8")
            compile_game(CHALLENGES[self._game][1](dict(self._settings), options), options)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same game
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def possible(command: str | None, commands: Sequence[str]) -> str | None:
    """The one of `commands` that is meant, whatever its case."""
    wanted = (command or "").lower()
    return next((known for known in commands if known.lower() == wanted), None)


def observation(text: str, commands: Sequence[str]) -> str:
    """What a game says, without its status line and runs of empty lines, and the commands."""
    text = re.sub(r"\n>.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*\n", "\n", text).strip()
    return f"{text}\nCommands: {'; '.join(commands)}" if commands else text


def _arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as `tw-make` takes them on its command line."""
    arguments = []
    for name, value in options.items():
        if value is not False:
            flag = f"--{name.replace('_', '-')}"
            arguments.append(flag if value is True else f"{flag}={value}")
    return arguments


class _Parser(argparse.ArgumentParser):
    """Complains as layerpick does, in place of leaving the program."""

    def __init__(self, prog: str):
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise LayerpickError(f"The options of '{self.prog}' are wrong: {message}.")
