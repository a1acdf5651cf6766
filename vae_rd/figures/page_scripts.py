"""What happens in the browser when a control of the page is moved or a point is clicked.

The comment above each script lists what `page.py` hands to it. Texts that are put into the page have
been escaped there.
"""

# controls: buttons; columns: the place of each run's value among a control's buttons, [controls][runs];
# slider: of beta, or null; places: each run's place on it; view: which runs are shown; partitions: buttons of test and
# train; points: their two renderers; curves: [line, source, partition, place on each control, x, y, places on the
# slider].
CONTROLS = """
const [low, high] = slider == null ? [-Infinity, Infinity] : slider.value
const within = place => low <= place && place <= high
view.booleans = places.map((place, run) =>
  within(place) && controls.every((control, k) => control.active.includes(columns[k][run])))
points.forEach((renderer, partition) => { renderer.visible = partitions.active.includes(partition) })
for (const [line, source, partition, values, x, y, on_slider] of curves) {
  line.visible = partitions.active.includes(partition)
    && controls.every((control, k) => control.active.includes(values[k]))
  const kept = on_slider.map(within)
  source.data = {x: x.filter((_, k) => kept[k]), y: y.filter((_, k) => kept[k])}
}
"""

# sources: of the two partitions' points, a row per run; texts: HTML by run, shown in panel; histograms: by run, or
# null; cells, means: sources of the histogram; x_range, y_range: its axes; mapper: its colours.
SHOW = """
const changed = sources.find(source => source.selected === cb_obj)
const [run] = (changed ?? sources[0]).selected.indices
if (run == null) {
  return
}
for (const source of sources) {
  if (source.selected.indices.length != 1 || source.selected.indices[0] != run) {
    source.selected.indices = [run]
  }
}
panel.text = texts[run]
if (histograms[run] == null) {
  cells.data = {left: [], right: [], bottom: [], top: [], count: []}
  means.data = {x: [], y: []}
  return
}
const [farthest, lowest, highest, counts, mean] = histograms[run]
const bins = mean.length
const [width, height] = [farthest / bins, (highest - lowest) / bins]
const filled = counts.map((_, cell) => cell).filter(cell => counts[cell] > 0)
const column = cell => Math.floor(cell / bins)
mapper.high = Math.max(2, ...counts)
cells.data = {
  left: filled.map(cell => column(cell) * width), right: filled.map(cell => (column(cell) + 1) * width),
  bottom: filled.map(cell => lowest + (cell % bins) * height),
  top: filled.map(cell => lowest + (cell % bins + 1) * height), count: filled.map(cell => counts[cell]),
}
const known = mean.map((_, bin) => bin).filter(bin => mean[bin] != null)
means.data = {x: known.map(bin => (bin + 0.5) * width), y: known.map(bin => mean[bin])}
x_range.setv({start: 0, end: farthest})
y_range.setv({start: lowest, end: highest})
"""
