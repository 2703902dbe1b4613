# The demonstration slide that the shipped sample sheet names: synthetic tissue, and its true class map.


rule demo_slide:
    output:
        slide="data/demo/demo.tif",
        truth="data/demo/demo.truth.tif",
    log:
        "data/demo/demo.log",
    benchmark:
        "data/demo/demo.benchmark.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "sampath-wsi demo-slide {output.slide:q} --truth {output.truth:q} > {log:q} 2>&1"
