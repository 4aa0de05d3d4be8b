from _job import run


def main(snakemake):
    from convergent.figures.one_to_one import joint_activations
    from convergent.figures.style import save
    from convergent.measures.joint_densities import load_joint_densities

    nets = snakemake.params.pair.split("-")
    densities, titles, labels = [], [], []
    for layer, rank, units, correlation, information, density in load_joint_densities(
        snakemake.input.densities
    ):
        densities.append(density)
        titles.append(
            f"{layer}, {rank} correlation: r = {correlation:.3f}, I = {information:.2f} nats"
        )
        labels.append(tuple(f"{net}, unit {unit}" for net, unit in zip(nets, units, strict=True)))
    save(joint_activations(densities, titles, labels), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
