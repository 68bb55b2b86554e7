"""Changes to the gated layer's kernels that a test must notice: (file, old text, new text, test)."""

FOLDER = "kernels/gated_graph"
TESTS = "tests/kernels/test_gated_graph_triton.py"
VALUES = f"{TESTS}::test_values_and_gradients_are_the_references[fp64-binary]"
WEIGHTED = f"{TESTS}::test_values_and_gradients_are_the_references[fp64-multiplicity]"
PROJECTED = "tests/kernels/test_gated_graph_project_triton.py::test_values_and_gradients_are_the_references"

MUTATIONS = [
    (f"{FOLDER}/forward.py", "n + z * (x - n)", "n + z * (x + n)", VALUES),
    (f"{FOLDER}/forward.py", "if layer < num_layers - 1:", "if layer < 0:", VALUES),
    (f"{FOLDER}/gates.py", "2 * tl.sigmoid(2 * (n + r * h)) - 1", "2 * tl.sigmoid(2 * (n + h)) - 1", VALUES),
    (
        f"{FOLDER}/gates.py",
        "(mean_out / tl.maximum(degree_out, 1.0))",
        "(mean_out / tl.maximum(degree_in, 1.0))",
        VALUES,
    ),
    (f"{FOLDER}/tile.py", "digit *= 2", "digit *= 1", WEIGHTED),
    (f"{FOLDER}/tile.py", "(bit < 32)[:, None]", "(bit < 31)[:, None]", VALUES),
    (f"{FOLDER}/tile.py", "column == 2, degree_out", "column == 2, degree_in", VALUES),
    (f"{FOLDER}/wide.py", "+ block * TILE + tl.arange(0, TILE)", "+ tl.arange(0, TILE)", VALUES),
    (f"{FOLDER}/wide.py", "before + arriving + leaving", "before + arriving", VALUES),
    (f"{FOLDER}/gate_gradients.py", "(1 - z) * (1 - n * n)", "(1 - z) * (1 - n)", VALUES),
    (f"{FOLDER}/gate_gradients.py", "candidate * h * r * (1 - r)", "candidate * h * r", VALUES),
    (f"{FOLDER}/backward.py", "total += edge_product(edges_out, (mean_in", "total += edge_product(edges_in, (mean_in", VALUES),
    (f"{FOLDER}/backward.py", "states_ptr + (layer - 1) * layer_cells", "states_ptr + layer * layer_cells", VALUES),
    (f"{FOLDER}/backward.py", "mean_in / tl.maximum(degree_in, 1.0), D", "mean_in, D", VALUES),
    (
        f"{FOLDER}/gate_gradients.py",
        "edges_in, edges_out, degree_in, degree_out",
        "edges_in, edges_out, degree_out, degree_in",
        VALUES,
    ),
    (f"{FOLDER}/gates.py", "cells += STEP", "cells += 0 * STEP", f"{TESTS}::test_one_layer_at_the_trained_dimension[fp32]"),
    (
        f"{FOLDER}/gate_gradients.py",
        "cells += STEP * D",
        "cells += 0 * D",
        f"{TESTS}::test_one_layer_at_the_trained_dimension[fp32]",
    ),
    (
        f"{FOLDER}/project.py",
        "(row * prompt_length + position) * num_columns",
        "(row * prompt_length + (position + 1) % prompt_length) * num_columns",
        f"{PROJECTED}[fp64]",
    ),
    (f"{FOLDER}/project.py", "weight_ptr += STEP", "weight_ptr += 0 * STEP", f"{PROJECTED}[fp32]"),
    (f"{FOLDER}/project_path.py", "torch.where(kept[:, None], flat, 0)", "flat", f"{PROJECTED}[fp64]"),
]
