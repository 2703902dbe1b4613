# The paper's experiments: each target trains and tests every row of Table 1 on one data set. What is run with which
# options is planned in sampath_wsi/training/experiments/plan.py; with --config smoke=true all of it runs on tiny stand-ins.

SET = EXPERIMENT_DIR / "{dataset}"
SET_LOGS = EXPERIMENT_DIR / "logs" / "{dataset}"
SET_BENCHMARKS = EXPERIMENT_DIR / "benchmarks" / "{dataset}"
# How all trainings and tests are computed; it decides about no result.
COMPUTED = EXPERIMENTS["bcss"]


wildcard_constraints:
    dataset="|".join(EXPERIMENTS),
    fold_plan="official|disjoint|authors",
    run="(no_pathology|no_sam|sampath)-[a-z0-9.-]+",
    digest="[0-9a-f]{8}",
    row="vanilla|vanilla_pp",
    weights="sam_vit_[blh]|hipt_vit_small",
    tiny="sam|hipt",


# The targets experiment_bcss, sweep_bcss and so on.
for _data_set, _experiment in EXPERIMENTS.items():
    for _target, _file in (("experiment", "report.md"), ("sweep", "sweep.md")):

        rule:
            name:
                f"{_target}_{_data_set}"
            input:
                _experiment.folder / _file,
            localrule: True


rule experiment_encoder:
    output:
        EXPERIMENT_DIR / "encoders" / "{weights}.pth",
    log:
        EXPERIMENT_DIR / "logs" / "encoder-{weights}.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "encoder-{weights}.tsv"
    retries: 3
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        "sampath-wsi model fetch {wildcards.weights} {output:q} > {log:q} 2>&1"


# Only smoke runs ask for these two: the data themselves are downloaded by their user.
rule experiment_tiny_encoder:
    output:
        EXPERIMENT_DIR / "encoders" / "tiny-{tiny}.pth",
    log:
        EXPERIMENT_DIR / "logs" / "tiny-{tiny}.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "tiny-{tiny}.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        version=VERSIONS["demo-data"],
    shell:
        "sampath-wsi demo-encoder {wildcards.tiny} {output:q} > {log:q} 2>&1"


rule experiment_stand_in:
    output:
        directory(EXPERIMENT_DIR / "raw" / "{dataset}"),
    log:
        SET_LOGS / "stand-in.log",
    benchmark:
        SET_BENCHMARKS / "stand-in.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("demo-data")),
        version=VERSIONS["demo-data"],
    shell:
        "sampath-wsi demo-data {wildcards.dataset} {output:q} {params.options} > {log:q} 2>&1"


rule experiment_data:
    input:
        lambda w: EXPERIMENTS[w.dataset].made_sources,
    output:
        directory(SET / "data"),
    log:
        SET_LOGS / "data.log",
    benchmark:
        SET_BENCHMARKS / "data.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        source=lambda w: EXPERIMENTS[w.dataset].own.source,
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("prepare")),
        version=VERSIONS["prepare"],
    shell:
        "sampath-wsi prepare {wildcards.dataset} {params.source:q} {output:q} {params.options} > {log:q} 2>&1"


rule experiment_split:
    input:
        SET / "data",
    output:
        splits=SET / "{fold_plan}" / "splits.csv",
        leakage=SET / "{fold_plan}" / "leakage.json",
    log:
        SET_LOGS / "{fold_plan}" / "split.log",
    benchmark:
        SET_BENCHMARKS / "{fold_plan}" / "split.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("split", w.fold_plan)),
        version=VERSIONS["split"],
    shell:
        "(sampath-wsi prepare split {input:q} {output.splits:q} {params.options} &&"
        " sampath-wsi prepare check {input:q} --splits {output.splits:q} --pixels --out {output.leakage:q}) > {log:q} 2>&1"


# Pretraining waits until the data are there that it is for.
rule experiment_synthetic:
    input:
        wanted_for=ancient(SET / "data"),
    output:
        directory(SET / "synthetic"),
    log:
        SET_LOGS / "synthetic.log",
    benchmark:
        SET_BENCHMARKS / "synthetic.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("synthetic-glands")),
        version=VERSIONS["demo-data"],
    shell:
        "sampath-wsi prepare synthetic-glands {output:q} {params.options} > {log:q} 2>&1"


# Declared is the card alone, which is written last: checkpoints of a run that was cut off must survive, so that
# the next run goes on with them, and Snakemake deletes declared outputs of failed jobs.
rule experiment_pretrain:
    input:
        data=SET / "synthetic",
    output:
        SET / "pretraining" / "{run}.{digest}" / "model" / "card.json",
    log:
        SET_LOGS / "pretraining" / "{run}.{digest}.log",
    benchmark:
        SET_BENCHMARKS / "pretraining" / "{run}.{digest}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: COMPUTED.threads
    resources:
        gpu=COMPUTED.gpus,
    params:
        flags=lambda w, threads: as_flags(COMPUTED.device_flags),
        recipe=lambda w: EXPERIMENTS[w.dataset].own.pretraining,
        folder=lambda w, output: Path(output[0]).parents[1],
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("pretrain", w.run)),
        version=VERSIONS["train"],
    shell:
        "sampath-wsi train {params.recipe:q} --data {input.data:q} --out {params.folder:q} --resume {params.options}"
        " {params.flags} --threads {threads} > {log:q} 2>&1"


rule experiment_train:
    input:
        data=SET / "data",
        splits=SET / "{fold_plan}" / "splits.csv",
        weights=lambda w: EXPERIMENTS[w.dataset].training_weights,
        pretraining=lambda w: EXPERIMENTS[w.dataset].pretraining_cards(w.run),
    output:
        SET / "{fold_plan}" / "runs" / "{run}.{digest}" / "model" / "card.json",
    log:
        SET_LOGS / "{fold_plan}" / "{run}.{digest}.log",
    benchmark:
        SET_BENCHMARKS / "{fold_plan}" / "{run}.{digest}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: COMPUTED.threads
    resources:
        gpu=COMPUTED.gpus,
    params:
        flags=lambda w, threads: as_flags(COMPUTED.device_flags),
        recipe=lambda w: EXPERIMENTS[w.dataset].own.recipe,
        folder=lambda w, output: Path(output[0]).parents[1],
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("train", w.run)),
        version=VERSIONS["train"],
    shell:
        "sampath-wsi train {params.recipe:q} --data {input.data:q} --splits {input.splits:q} --out {params.folder:q}"
        " --resume {params.options} {params.flags} --threads {threads} > {log:q} 2>&1"


rule experiment_test:
    input:
        card=lambda w: EXPERIMENTS[w.dataset].card(w.fold_plan, w.run),
        data=SET / "data",
        splits=SET / "{fold_plan}" / "splits.csv",
    output:
        SET / "{fold_plan}" / "test" / "{run}" / "scores.json",
        SET / "{fold_plan}" / "test" / "{run}" / "counts.csv",
    log:
        SET_LOGS / "{fold_plan}" / "{run}.test.log",
    benchmark:
        SET_BENCHMARKS / "{fold_plan}" / "{run}.test.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: COMPUTED.threads
    resources:
        gpu=min(1, COMPUTED.gpus),
    params:
        flags=lambda w, threads: as_flags({"device": COMPUTED.common.device}),
        model=lambda w, input: Path(input.card).parent,
        out=lambda w, output: Path(output[0]).parent,
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("test")),
        version=VERSIONS["test"],
    shell:
        "sampath-wsi test {params.model:q} --data {input.data:q} --splits {input.splits:q} --out {params.out:q}"
        " {params.options} {params.flags} --threads {threads} > {log:q} 2>&1"


rule experiment_vanilla:
    input:
        sam=lambda w: EXPERIMENTS[w.dataset].weights("sam"),
        data=SET / "data",
    output:
        SET / "vanilla" / "{row}" / "scores.json",
        SET / "vanilla" / "{row}" / "counts.csv",
    log:
        SET_LOGS / "{row}.test.log",
    benchmark:
        SET_BENCHMARKS / "{row}.test.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: COMPUTED.threads
    resources:
        gpu=min(1, COMPUTED.gpus),
    params:
        flags=lambda w, threads: as_flags({"device": COMPUTED.common.device}),
        out=lambda w, output: Path(output[0]).parent,
        options=lambda w: as_flags(
            EXPERIMENTS[w.dataset].options("test-prompts", w.row)
        ),
        version=VERSIONS["test"],
    shell:
        "sampath-wsi test-prompts --sam {input.sam:q} --data {input.data:q} --out {params.out:q} {params.options}"
        " {params.flags} --threads {threads} > {log:q} 2>&1"


rule experiment_report:
    input:
        scores=lambda w: EXPERIMENTS[w.dataset].table_scores,
        leakage=lambda w: EXPERIMENTS[w.dataset].leakage_files,
    output:
        SET / "table1.csv",
        SET / "table1.svg",
        SET / "classes.csv",
        SET / "times.csv",
        report(
            SET / "table1.png",
            category="Experiments",
            labels={"data set": "{dataset}", "figure": "Table 1"},
            caption="../report/table1.rst",
        ),
        text=SET / "report.md",
    log:
        SET_LOGS / "report.log",
    benchmark:
        SET_BENCHMARKS / "report.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        out=lambda w, output: Path(output.text).parent,
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("experiment report")),
        version=VERSIONS["experiment"],
    shell:
        "sampath-wsi experiment report {wildcards.dataset} {input.scores:q} --out {params.out:q} {params.options}"
        " > {log:q} 2>&1"


rule experiment_sweep:
    input:
        scores=lambda w: EXPERIMENTS[w.dataset].sweep_scores,
    output:
        SET / "sweep.csv",
        SET / "sweep.svg",
        report(
            SET / "sweep.png",
            category="Experiments",
            labels={"data set": "{dataset}", "figure": "Figure 4"},
            caption="../report/sweep.rst",
        ),
        text=SET / "sweep.md",
    log:
        SET_LOGS / "sweep.log",
    benchmark:
        SET_BENCHMARKS / "sweep.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        out=lambda w, output: Path(output.text).parent,
        options=lambda w: as_flags(EXPERIMENTS[w.dataset].options("experiment sweep")),
        version=VERSIONS["experiment"],
    shell:
        "sampath-wsi experiment sweep {wildcards.dataset} {input.scores:q} --out {params.out:q} {params.options}"
        " > {log:q} 2>&1"
