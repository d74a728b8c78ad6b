"""scikit-learn behind manybridge, in one file: training with live progress, prediction, models that survive a crash.

    [bridges.sklearn]
    python_script = "examples/sklearn_bridge.py"
    python = ".envs/sklearn/bin/python"

The data are the 1,797 handwritten digits that scikit-learn carries: 8 by 8 pixels each, a quarter kept for testing.
"""

from typing import Any

from manybridge.bridge import Bridge, BridgeError, Context, command, resource

SHADES = " .:-=+*#%@"


class SklearnBridge(Bridge):
    """Neural networks that read handwritten digits."""

    name = "sklearn"
    capabilities = ("training", "prediction")
    required_modules = ("sklearn",)
    zygote_safe = True

    @classmethod
    def preload(cls) -> None:
        """Import what takes long; a zygote does this once for all workers."""
        import sklearn.model_selection
        import sklearn.neural_network  # noqa: F401

    def setup(self, options: dict[str, Any]) -> None:
        """Load the digits: pixels (1797, 64) float64 in 0..1, labels (1797,) int64 in 0..9."""
        from sklearn import __version__
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        type(self).version = __version__
        pixels, labels = load_digits(return_X_y=True)
        self.learn_x, self.test_x, self.learn_y, self.test_y = train_test_split(
            pixels / 16, labels, test_size=0.25, random_state=options.get("seed", 0), stratify=labels
        )

    @command
    def train(self, epochs: int = 40, hidden: int = 64, seed: int = 0, *, ctx: Context) -> dict[str, Any]:
        """Train a network, keep it for `sklearn:predict`, and return its accuracy on the test digits."""
        self.network = self.fit(epochs, hidden, seed, ctx)
        return {"epochs": epochs, "accuracy": self.network.score(self.test_x, self.test_y)}

    @command(idempotent=True)
    def predict(self, rows: list[int]) -> dict[str, Any]:
        """Read test digits, by their row, with the network that was trained last."""
        if not hasattr(self, "network"):
            raise BridgeError("invalid_request", "nothing is trained yet in this worker; call sklearn:train first")
        return self.read(self.network, rows)

    @command(idempotent=True)
    def picture(self, row: int) -> dict[str, Any]:
        """Draw one test digit in characters."""
        pixels = self.chosen([row])[0].reshape(8, 8)
        lines = ["".join(SHADES[round(value * 9)] * 2 for value in line) for line in pixels]
        return {"row": row, "label": int(self.test_y[row]), "lines": lines}

    @resource("model", policy="restore")
    class Model:
        """A trained network. Its snapshot holds the weights as plain lists, so it outlives its worker."""

        bridge: "SklearnBridge"

        def create(self, epochs: int = 40, hidden: int = 64, seed: int = 0, *, ctx: Context) -> None:
            """Train, with progress."""
            self.hidden = hidden
            self.network = self.bridge.fit(epochs, hidden, seed, ctx)

        def execute(self, rows: list[int]) -> dict[str, Any]:
            """Read test digits, by their row."""
            return self.bridge.read(self.network, rows)

        def snapshot(self) -> dict[str, Any]:
            """Return the weights; never a pickle."""
            layers = zip(self.network.coefs_, self.network.intercepts_, strict=True)
            return {"hidden": self.hidden, "layers": [[weights.tolist(), bias.tolist()] for weights, bias in layers]}

        def restore(self, state: dict[str, Any]) -> None:
            """Build a network of that shape and put the weights back."""
            import numpy as np

            self.hidden = state["hidden"]
            self.network = self.bridge.network_of(self.hidden, seed=0)
            self.network.coefs_ = [np.array(weights) for weights, _ in state["layers"]]
            self.network.intercepts_ = [np.array(bias) for _, bias in state["layers"]]

    def fit(self, epochs: int, hidden: int, seed: int, ctx: Context) -> Any:
        """Train epoch by epoch; `ctx.check()` is where a cancelled call stops."""
        network = self.network_of(hidden, seed)
        for epoch in range(1, epochs + 1):
            ctx.check()
            network.partial_fit(self.learn_x, self.learn_y)
            accuracy = network.score(self.test_x, self.test_y)
            ctx.progress(epoch, epochs, f"loss {network.loss_:.3f}, accuracy {accuracy:.1%}")
        return network

    def network_of(self, hidden: int, seed: int) -> Any:
        """Return a network that has seen one batch, so that its layers have their shape."""
        from sklearn.neural_network import MLPClassifier

        network = MLPClassifier((hidden,), random_state=seed)
        return network.partial_fit(self.learn_x[:100], self.learn_y[:100], classes=range(10))

    def read(self, network: Any, rows: list[int]) -> dict[str, Any]:
        """Return what the network sees in the rows, how sure it is, and what was really written."""
        sure = network.predict_proba(self.chosen(rows))
        seen = sure.argmax(axis=1).tolist()
        return {"digits": seen, "sure": sure.max(axis=1).round(3).tolist(), "labels": self.test_y[rows].tolist()}

    def chosen(self, rows: list[int]) -> Any:
        """Return the pixels of test rows, or say which rows there are."""
        last = len(self.test_y) - 1
        if not rows or not all(0 <= row <= last for row in rows):
            raise BridgeError("invalid_argument", f"rows: expected one or more numbers from 0 to {last}")
        return self.test_x[rows]
