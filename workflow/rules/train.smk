# A model of one's own: data of any kind that `prepare` knows -> split by patient or slide -> trained -> tested on what
# validated. `snakemake train` makes it; the section `training` of the configuration says of what.

TRAINING = CONFIG.training
TRAINING_DIR = Path(TRAINING.output)
# Synthetic data are made from nothing, and say themselves what validates.
TRAINING_SOURCE = [] if TRAINING.data.startswith("synthetic") else [TRAINING.source]
TRAINING_SPLITS = [TRAINING_DIR / "splits.csv"] if TRAINING_SOURCE else []


localrules:
    train,


rule train:
    input:
        TRAINING_DIR / "model" / "card.json",
        TRAINING_DIR / "scores" / "scores.json",


rule training_data:
    output:
        directory(TRAINING_DIR / "data"),
    log:
        TRAINING_DIR / "logs" / "data.log",
    benchmark:
        TRAINING_DIR / "benchmarks" / "data.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        kind=TRAINING.data,
        source=lambda wildcards: TRAINING_SOURCE,
        options=lambda wildcards: as_flags(TRAINING.prepare),
        version=VERSIONS["prepare"],
    shell:
        "sampath-wsi prepare {params.kind} {params.source:q} {output:q} {params.options} > {log:q} 2>&1"


rule training_split:
    input:
        TRAINING_DIR / "data",
    output:
        splits=TRAINING_DIR / "splits.csv",
        leakage=TRAINING_DIR / "leakage.json",
    log:
        TRAINING_DIR / "logs" / "split.log",
    benchmark:
        TRAINING_DIR / "benchmarks" / "split.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda wildcards: as_flags(
            {"val_share": TRAINING.val_share, "seed": TRAINING.seed}
        ),
        version=VERSIONS["split"],
    shell:
        "(sampath-wsi prepare split {input:q} {output.splits:q} {params.options} &&"
        " sampath-wsi prepare check {input:q} --splits {output.splits:q} --out {output.leakage:q}) > {log:q} 2>&1"


# Declared is the card alone, which is written last: checkpoints must survive a failure.
rule training_run:
    input:
        recipe=TRAINING.recipe,
        data=TRAINING_DIR / "data",
        splits=TRAINING_SPLITS,
    output:
        TRAINING_DIR / "model" / "card.json",
    log:
        TRAINING_DIR / "logs" / "train.log",
    benchmark:
        TRAINING_DIR / "benchmarks" / "train.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=0 if TRAINING.device == "cpu" else TRAINING.devices,
    params:
        out=TRAINING_DIR,
        options=lambda wildcards: as_flags({"set": TRAINING.set}),
        flags=lambda wildcards, input: as_flags(
            {
                "splits": input.splits,
                "device": TRAINING.device,
                "devices": TRAINING.devices,
            }
        ),
        version=VERSIONS["train"],
    shell:
        "sampath-wsi train {input.recipe:q} --data {input.data:q} --out {params.out:q} --resume {params.options}"
        " {params.flags} --threads {threads} > {log:q} 2>&1"


rule training_scores:
    input:
        card=TRAINING_DIR / "model" / "card.json",
        data=TRAINING_DIR / "data",
        splits=TRAINING_SPLITS,
    output:
        TRAINING_DIR / "scores" / "scores.json",
        TRAINING_DIR / "scores" / "counts.csv",
    log:
        TRAINING_DIR / "logs" / "scores.log",
    benchmark:
        TRAINING_DIR / "benchmarks" / "scores.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=0 if TRAINING.device == "cpu" else 1,
    params:
        model=TRAINING_DIR / "model",
        out=TRAINING_DIR / "scores",
        options=lambda wildcards: as_flags({"split": "val"}),
        flags=lambda wildcards, input: as_flags(
            {"splits": input.splits, "device": TRAINING.device}
        ),
        version=VERSIONS["test"],
    shell:
        "sampath-wsi test {params.model:q} --data {input.data:q} --out {params.out:q} --maps {params.options}"
        " {params.flags} --threads {threads} > {log:q} 2>&1"
