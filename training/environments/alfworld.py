"""ALFWorld's household tasks in text (Shridhar et al. 2021, arXiv 2010.03768).

Needs the data that `alfworld-download` fetches: the folder that holds `json_2.1.1`, given as
`alfworld?data=FOLDER` or $ALFWORLD_DATA, or else ALFWorld's own place for it. Even seeds play the
training games, odd seeds those of `heldout` (valid_seen or valid_unseen). An episode is one game;
its reward is 1 for the task done. Commands that the game does not list as possible are invalid;
`commands=false` leaves the list out of the observations. Games without a known solution are
passed over, as ALFWorld does.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import validate_call

from layerpick.training.environments.base import TextWorld, WorldStep
from layerpick.training.environments.textworld import observation, possible
from layerpick.training.errors import LayerpickError, MissingExtraError

VERSION = "json_2.1.1"
UNSUPPORTED = ("movable", "Sliced")
"""Parts of folder names whose games the text engine cannot play."""


class AlfWorld(TextWorld):
    """ALFWorld games, played one at a time with TextWorld's engine."""

    rules = (
        "You act in a household. Answer with one of the listed commands, such as: go to desk 1, "
        "open drawer 2, take mug 1 from shelf 1."
    )
    turns = 50

    @validate_call
    def __init__(
        self,
        data: str | None = None,
        heldout: Literal["valid_seen", "valid_unseen"] = "valid_seen",
        commands: bool = True,
    ):
        _engine()
        from alfworld.info import ALFWORLD_DATA

        folder = data or ALFWORLD_DATA
        self._splits = [Path(folder).expanduser() / VERSION / name for name in ("train", heldout)]
        for split in self._splits:
            if not _games(split):
                raise LayerpickError(
                    f"There are no ALFWorld games (game.tw-pddl) in {split}: run alfworld-download "
                    f"and write alfworld?data=FOLDER or set $ALFWORLD_DATA."
                )
        self._commands = commands
        self._env: Any = None
        self._state: Any = None
        self._observation = ""

    def reset(self, seed: int) -> str:
        """Start the seed's game of the seed's split."""
        import textworld

        self.close()
        games = _games(self._splits[seed % 2])
        first = seed // 2 % len(games)
        solvable = (game for game in games[first:] + games[:first] if _solvable(game))
        game = next(solvable, None)
        if game is None:
            raise LayerpickError(f"No ALFWorld game in {self._splits[seed % 2]} has a solution.")
        infos = textworld.EnvInfos(admissible_commands=True, won=True, lost=True)
        self._env = textworld.start(str(game), infos, wrappers=[_engine()])
        self._state = self._env.reset()
        return self._observe(self._state.feedback.partition("=-")[2])

    def step(self, action: str) -> WorldStep:
        """Give the game a command."""
        command = possible(self.read(action), self._state.admissible_commands)
        if command is None:
            return WorldStep(self._observation, 0.0, done=False, valid=False)
        self._state, _, done = self._env.step(command)
        return WorldStep(self._observe(self._state.feedback), float(self._state.won), done)

    def close(self) -> None:
        """End the game."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observe(self, text: str) -> str:
        commands = self._state.admissible_commands if self._commands else ()
        self._observation = observation(text, commands)
        return self._observation


def _engine() -> Any:
    """ALFWorld's wrapper that gives things their readable names."""
    try:
        import textworld  # noqa: F401
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    except ImportError as error:
        raise MissingExtraError("The environment 'alfworld'", "alfworld") from error
    return AlfredDemangler(shuffle=False)


@cache
def _games(split: Path) -> tuple[Path, ...]:
    return tuple(
        path
        for path in sorted(split.rglob("game.tw-pddl"))
        if not any(word in str(path.relative_to(split)) for word in UNSUPPORTED)
    )


def _solvable(game: Path) -> bool:
    return bool(json.loads(game.read_text(encoding="utf-8")).get("solvable"))
