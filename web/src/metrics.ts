// Metrics in Prometheus' text format.

export interface Metric {
  readonly name: string;
  readonly labels: string;
  readonly value: string;
  readonly help: string;
}

/** The samples in a text in the format of Prometheus, without the buckets of histograms. */
export function parseMetrics(text: string): Metric[] {
  const help = new Map<string, string>();
  const metrics: Metric[] = [];
  for (const line of text.split("\n")) {
    const about = /^# HELP (\S+) (.*)$/.exec(line);
    if (about) help.set(about[1]!, about[2]!);
    const sample = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample || sample[1]!.endsWith("_bucket")) continue;
    const [, name, labels = "", value] = sample as unknown as [string, string, string | undefined, string];
    metrics.push({ name, labels, value, help: help.get(name) ?? help.get(name.replace(/_(sum|count)$/, "")) ?? "" });
  }
  return metrics;
}
