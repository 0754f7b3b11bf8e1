//! The figures of a report, as SVG.

use std::ops::Range;
use std::path::Path;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 480);
const COLORS: [RGBColor; 9] = [
    RGBColor(0, 90, 180),
    RGBColor(200, 80, 0),
    RGBColor(0, 130, 80),
    RGBColor(150, 0, 110),
    RGBColor(110, 110, 110),
    RGBColor(180, 160, 0),
    RGBColor(0, 170, 190),
    RGBColor(90, 60, 20),
    RGBColor(220, 90, 130),
];
const FONT: &str = "sans-serif";

/// A named row of points.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// In rising order of x.
    pub points: Vec<(f64, f64)>,
}

/// What is on the axes.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// Over the plot.
    pub title: &'a str,
    /// Below.
    pub x: &'a str,
    /// At the side.
    pub y: &'a str,
    /// x has powers of ten.
    pub logarithmic_x: bool,
    /// y has powers of ten.
    pub logarithmic_y: bool,
}

/// Lines with a mark at each point.
pub fn lines(path: &Path, axes: Axes<'_>, lines: &[Line]) -> anyhow::Result<()> {
    let all = || lines.iter().flat_map(|line| &line.points).copied();
    let x = span(all().map(|(x, _)| x), axes.logarithmic_x);
    let y = span(all().map(|(_, y)| y), axes.logarithmic_y);
    match (axes.logarithmic_x, axes.logarithmic_y) {
        (true, true) => draw(path, axes, lines, LogRange(x), LogRange(y)),
        (true, false) => draw(path, axes, lines, LogRange(x), Linear(y)),
        (false, true) => draw(path, axes, lines, Linear(x), LogRange(y)),
        (false, false) => draw(path, axes, lines, Linear(x), Linear(y)),
    }
}

/// From zero, or from a little below the least where powers of ten have no zero, to a little above the most.
fn span(values: impl Iterator<Item = f64>, logarithmic: bool) -> Range<f64> {
    let (least, most) =
        values.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let most = if most > 0.0 { most } else { 1.0 };
    let from = if logarithmic { least.clamp(1e-9, most) / 1.5 } else { 0.0 };
    from..most * if logarithmic { 1.5 } else { 1.1 }
}

struct Linear(Range<f64>);
struct LogRange(Range<f64>);

/// A range as an axis.
trait Axis {
    type Coordinate: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>;
    fn coordinate(self) -> Self::Coordinate;
}

impl Axis for Linear {
    type Coordinate = RangedCoordf64;
    fn coordinate(self) -> RangedCoordf64 {
        self.0.into()
    }
}

impl Axis for LogRange {
    type Coordinate = LogCoord<f64>;
    fn coordinate(self) -> LogCoord<f64> {
        self.0.log_scale().into()
    }
}

fn draw<X: Axis, Y: Axis>(path: &Path, axes: Axes<'_>, lines: &[Line], x: X, y: Y) -> anyhow::Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(axes.title, (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.coordinate(), y.coordinate())?;
    chart.configure_mesh().x_desc(axes.x).y_desc(axes.y).light_line_style(TRANSPARENT).draw()?;
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let series = LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3);
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2));
        chart.draw_series(series)?.label(&line.name).legend(legend);
    }
    let labels = &mut chart.configure_series_labels();
    labels
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .position(SeriesLabelPosition::UpperLeft);
    labels.draw()?;
    area.present()?;
    Ok(())
}

/// A bar for each of them, with its value.
pub fn bars(path: &Path, title: &str, x: &str, values: &[(String, f64)]) -> anyhow::Result<()> {
    let height = 110 + 34 * values.len() as u32;
    let area = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let x_span = span(values.iter().map(|(_, value)| *value), true);
    let from = x_span.start;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .build_cartesian_2d((from..x_span.end * 30.0).log_scale(), 0.0..values.len() as f64)?;
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc(x).light_line_style(TRANSPARENT).draw()?;
    for (place, (name, value)) in values.iter().rev().enumerate() {
        let (low, high) = (place as f64 + 0.15, place as f64 + 0.85);
        let bar = Rectangle::new([(from, low), (*value, high)], COLORS[0].mix(0.7).filled());
        chart.draw_series(std::iter::once(bar))?;
        let text = format!(" {name}: {value:.1}");
        chart.draw_series(std::iter::once(Text::new(text, (*value, low + 0.5), (FONT, 13))))?;
    }
    area.present()?;
    Ok(())
}
