# The paper's experiments: each target trains and tests every row of Table 1 on one data set. What is run with which
# options is planned in sampath_wsi/training/experiments/plan.py; with --config smoke=true all of it runs on tiny stand-ins.


wildcard_constraints:
    dataset="|".join(EXPERIMENTS),
    fold_plan="official|disjoint|authors",
    run="(no_pathology|no_sam|sampath)-[a-z0-9.-]+",
    digest="[0-9a-f]{8}",
    vanilla="vanilla|vanilla_pp",
    weights="sam_vit_[blh]|hipt_vit_small",
    tiny="sam|hipt",


localrules:
    experiment_bcss,
    experiment_crag,
    experiment_glas,
    sweep_bcss,
    sweep_crag,
    sweep_glas,
    experiment_encoder,


rule experiment_bcss:
    input:
        EXPERIMENTS["bcss"].folder / "report.md",


rule experiment_crag:
    input:
        EXPERIMENTS["crag"].folder / "report.md",


rule experiment_glas:
    input:
        EXPERIMENTS["glas"].folder / "report.md",


rule sweep_bcss:
    input:
        EXPERIMENTS["bcss"].folder / "sweep.md",


rule sweep_crag:
    input:
        EXPERIMENTS["crag"].folder / "sweep.md",


rule sweep_glas:
    input:
        EXPERIMENTS["glas"].folder / "sweep.md",


rule experiment_encoder:
    output:
        EXPERIMENT_DIR / "encoders" / "{weights}.pth",
    log:
        EXPERIMENT_DIR / "logs" / "encoder-{weights}.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "encoder-{weights}.tsv"
    retries: 3
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
        version=STAGE_VERSIONS["demo-data"],
    shell:
        "sampath-wsi demo-encoder {wildcards.tiny} {output:q} > {log:q} 2>&1"


rule experiment_stand_in:
    output:
        directory(EXPERIMENT_DIR / "raw" / "{dataset}"),
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "stand-in.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "stand-in.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].stand_in_options
        ),
        version=STAGE_VERSIONS["demo-data"],
    shell:
        "sampath-wsi demo-data {wildcards.dataset} {output:q} {params.options} > {log:q} 2>&1"


rule experiment_data:
    input:
        lambda wildcards: EXPERIMENTS[wildcards.dataset].made_sources,
    output:
        directory(EXPERIMENT_DIR / "{dataset}" / "data"),
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "data.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "data.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        source=lambda wildcards: EXPERIMENTS[wildcards.dataset].own["source"],
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].prepare_options
        ),
        version=STAGE_VERSIONS["prepare"],
    shell:
        "sampath-wsi prepare {wildcards.dataset} {params.source:q} {output:q} {params.options} > {log:q} 2>&1"


rule experiment_split:
    input:
        EXPERIMENT_DIR / "{dataset}" / "data",
    output:
        EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "splits.csv",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "{fold_plan}" / "split.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "{fold_plan}" / "split.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].split_options(wildcards.fold_plan)
        ),
        version=STAGE_VERSIONS["split"],
    shell:
        "sampath-wsi prepare split {input:q} {output:q} {params.options} > {log:q} 2>&1"


rule experiment_leakage:
    input:
        data=EXPERIMENT_DIR / "{dataset}" / "data",
        splits=EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "splits.csv",
    output:
        EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "leakage.json",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "{fold_plan}" / "leakage.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "{fold_plan}" / "leakage.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        version=STAGE_VERSIONS["split"],
    shell:
        "sampath-wsi prepare check {input.data:q} --splits {input.splits:q} --pixels --out {output:q} > {log:q} 2>&1"


# Pretraining waits until the data are there that it is for.
rule experiment_synthetic:
    input:
        wanted_for=ancient(EXPERIMENT_DIR / "{dataset}" / "data"),
    output:
        directory(EXPERIMENT_DIR / "{dataset}" / "synthetic"),
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "synthetic.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "synthetic.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].synthetic_options
        ),
        version=STAGE_VERSIONS["demo-data"],
    shell:
        "sampath-wsi prepare synthetic-glands {output:q} {params.options} > {log:q} 2>&1"


# Declared is the card alone, which is written last: checkpoints of a run that was cut off must survive, so that
# the next run goes on with them, and Snakemake deletes declared outputs of failed jobs.
rule experiment_pretrain:
    input:
        data=EXPERIMENT_DIR / "{dataset}" / "synthetic",
    output:
        EXPERIMENT_DIR / "{dataset}/pretraining/{run}.{digest}/model/card.json",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "pretraining" / "{run}.{digest}.log",
    benchmark:
        EXPERIMENT_DIR
        / "benchmarks"
        / "{dataset}"
        / "pretraining"
        / "{run}.{digest}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: EXPERIMENTS["bcss"].threads
    resources:
        gpu=EXPERIMENTS["bcss"].gpus,
    params:
        recipe=lambda wildcards: EXPERIMENTS[wildcards.dataset].own["pretraining"],
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].pretraining_options(
                Run.parse(wildcards.run)
            )
        ),
        version=STAGE_VERSIONS["train"],
    shell:
        "sampath-wsi train {params.recipe:q} --data {input.data:q} --out {params.folder:q} --resume {params.options}"
        " --threads {threads} > {log:q} 2>&1"


rule experiment_train:
    input:
        data=EXPERIMENT_DIR / "{dataset}" / "data",
        splits=EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "splits.csv",
        weights=lambda wildcards: EXPERIMENTS[wildcards.dataset].training_weights,
        pretraining=lambda wildcards: EXPERIMENTS[wildcards.dataset].pretraining_cards(
            Run.parse(wildcards.run)
        ),
    output:
        EXPERIMENT_DIR / "{dataset}/{fold_plan}/runs/{run}.{digest}/model/card.json",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "{fold_plan}" / "{run}.{digest}.log",
    benchmark:
        EXPERIMENT_DIR
        / "benchmarks"
        / "{dataset}"
        / "{fold_plan}"
        / "{run}.{digest}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: EXPERIMENTS["bcss"].threads
    resources:
        gpu=EXPERIMENTS["bcss"].gpus,
    params:
        recipe=lambda wildcards: EXPERIMENTS[wildcards.dataset].own["recipe"],
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].train_options(Run.parse(wildcards.run))
        ),
        version=STAGE_VERSIONS["train"],
    shell:
        "sampath-wsi train {params.recipe:q} --data {input.data:q} --splits {input.splits:q} --out {params.folder:q}"
        " --resume {params.options} --threads {threads} > {log:q} 2>&1"


rule experiment_test:
    input:
        card=lambda wildcards: EXPERIMENTS[wildcards.dataset].card(
            wildcards.fold_plan, Run.parse(wildcards.run)
        ),
        data=EXPERIMENT_DIR / "{dataset}" / "data",
        splits=EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "splits.csv",
    output:
        EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "test" / "{run}" / "scores.json",
        EXPERIMENT_DIR / "{dataset}" / "{fold_plan}" / "test" / "{run}" / "counts.csv",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "{fold_plan}" / "{run}.test.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "{fold_plan}" / "{run}.test.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: EXPERIMENTS["bcss"].threads
    resources:
        gpu=min(1, EXPERIMENTS["bcss"].gpus),
    params:
        model=lambda wildcards, input: Path(input.card).parent,
        out=lambda wildcards, output: Path(output[0]).parent,
        options=lambda wildcards: arguments(EXPERIMENTS[wildcards.dataset].test_options),
        version=STAGE_VERSIONS["test"],
    shell:
        "sampath-wsi test {params.model:q} --data {input.data:q} --splits {input.splits:q} --out {params.out:q}"
        " {params.options} --threads {threads} > {log:q} 2>&1"


rule experiment_vanilla:
    input:
        sam=lambda wildcards: EXPERIMENTS[wildcards.dataset].weights("sam"),
        data=EXPERIMENT_DIR / "{dataset}" / "data",
    output:
        EXPERIMENT_DIR / "{dataset}" / "vanilla" / "{vanilla}" / "scores.json",
        EXPERIMENT_DIR / "{dataset}" / "vanilla" / "{vanilla}" / "counts.csv",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "{vanilla}.test.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "{vanilla}.test.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: EXPERIMENTS["bcss"].threads
    resources:
        gpu=min(1, EXPERIMENTS["bcss"].gpus),
    params:
        out=lambda wildcards, output: Path(output[0]).parent,
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].vanilla_options(wildcards.vanilla)
        ),
        version=STAGE_VERSIONS["test"],
    shell:
        "sampath-wsi test-dots --sam {input.sam:q} --data {input.data:q} --out {params.out:q} {params.options}"
        " --threads {threads} > {log:q} 2>&1"


rule experiment_report:
    input:
        scores=lambda wildcards: EXPERIMENTS[wildcards.dataset].table_scores,
        leakage=lambda wildcards: EXPERIMENTS[wildcards.dataset].leakage_files,
    output:
        multiext(
            str(EXPERIMENT_DIR / "{dataset}" / "table1"),
            ".csv",
            ".svg",
        ),
        EXPERIMENT_DIR / "{dataset}" / "classes.csv",
        EXPERIMENT_DIR / "{dataset}" / "times.csv",
        report(
            EXPERIMENT_DIR / "{dataset}" / "table1.png",
            category="Experiments",
            labels={"data set": "{dataset}", "figure": "Table 1"},
            caption="../report/table1.rst",
        ),
        text=EXPERIMENT_DIR / "{dataset}" / "report.md",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "report.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "report.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        out=lambda wildcards, output: Path(output.text).parent,
        leakage=lambda wildcards, input: arguments({"leakage": list(input.leakage)}),
        options=lambda wildcards: arguments({"smoke": CONFIG["smoke"] or None}),
        version=STAGE_VERSIONS["experiment"],
    shell:
        "sampath-wsi experiment report {wildcards.dataset} {input.scores:q} {params.leakage} --out {params.out:q}"
        " {params.options} > {log:q} 2>&1"


rule experiment_sweep:
    input:
        scores=lambda wildcards: EXPERIMENTS[wildcards.dataset].sweep_scores,
    output:
        multiext(str(EXPERIMENT_DIR / "{dataset}" / "sweep"), ".csv", ".svg"),
        report(
            EXPERIMENT_DIR / "{dataset}" / "sweep.png",
            category="Experiments",
            labels={"data set": "{dataset}", "figure": "Figure 4"},
            caption="../report/sweep.rst",
        ),
        text=EXPERIMENT_DIR / "{dataset}" / "sweep.md",
    log:
        EXPERIMENT_DIR / "logs" / "{dataset}" / "sweep.log",
    benchmark:
        EXPERIMENT_DIR / "benchmarks" / "{dataset}" / "sweep.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        out=lambda wildcards, output: Path(output.text).parent,
        options=lambda wildcards: arguments(
            EXPERIMENTS[wildcards.dataset].sweep_options
            | {"smoke": CONFIG["smoke"] or None}
        ),
        version=STAGE_VERSIONS["experiment"],
    shell:
        "sampath-wsi experiment sweep {wildcards.dataset} {input.scores:q} --out {params.out:q} {params.options}"
        " > {log:q} 2>&1"
