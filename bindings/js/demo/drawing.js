// A drawing of 28 by 28 points, by pointer and by keyboard.

export const SIDE = 28;
const RADIUS = 1.3;
/** Lines of a seven, a one and a four. */
const EXAMPLES = [
  [[[8, 7], [20, 7], [13, 22]]],
  [[[11, 9], [15, 6], [15, 22]]],
  [[[10, 6], [8, 14], [20, 14]], [[17, 6], [17, 23]]],
];

export class Drawing {
  points = new Float32Array(SIDE * SIDE);
  #canvas;
  #tell;
  #pen = { x: 14, y: 7, down: false };
  #last;
  #examples = 0;

  /** `tell` gets words about the pen, for those who do not see it. */
  constructor(canvas, tell) {
    this.#canvas = canvas;
    this.#tell = tell;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = undefined;
      this.#moved(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && this.#moved(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.paint());
    canvas.addEventListener("blur", () => this.paint());
    this.paint();
  }

  get empty() {
    return this.points.every((point) => point === 0);
  }

  clear() {
    this.points.fill(0);
    this.#last = undefined;
    this.paint();
    this.#tell("The drawing is empty.");
  }

  example() {
    this.clear();
    for (const line of EXAMPLES[this.#examples++ % EXAMPLES.length]) {
      line.slice(1).forEach((end, at) => this.#line(line[at], end));
    }
    this.paint();
    this.#tell("An example was drawn.");
  }

  /** As the model was trained to see digits: 20 points in the larger direction, its middle in the middle. */
  normalised() {
    const filled = [...this.points.keys()].filter((at) => this.points[at] > 0);
    const found = new Float32Array(SIDE * SIDE);
    if (!filled.length) return found;
    const columns = filled.map((at) => at % SIDE);
    const rows = filled.map((at) => Math.floor(at / SIDE));
    const size = Math.max(Math.max(...columns) - Math.min(...columns), Math.max(...rows) - Math.min(...rows)) + 1;
    let [sum, x, y] = [0, 0, 0];
    filled.forEach((at, place) => {
      sum += this.points[at];
      x += this.points[at] * columns[place];
      y += this.points[at] * rows[place];
    });
    const scale = size / 20;
    const from = (row, column) => this.#between(y / sum + (row - 13.5) * scale, x / sum + (column - 13.5) * scale);
    for (let at = 0; at < found.length; at++) found[at] = from(Math.floor(at / SIDE), at % SIDE);
    return found;
  }

  paint() {
    paint(this.#canvas, this.points);
    if (document.activeElement !== this.#canvas) return;
    const context = this.#canvas.getContext("2d");
    const size = this.#canvas.width / SIDE;
    context.strokeStyle = this.#pen.down ? "#7ee2a0" : "#f2cc60";
    context.lineWidth = 2;
    context.strokeRect(this.#pen.x * size, this.#pen.y * size, size, size);
  }

  #between(row, column) {
    const [top, left] = [Math.floor(row), Math.floor(column)];
    const point = (y, x) => (y < 0 || x < 0 || y >= SIDE || x >= SIDE ? 0 : this.points[y * SIDE + x]);
    const [down, right] = [row - top, column - left];
    const above = point(top, left) * (1 - right) + point(top, left + 1) * right;
    const below = point(top + 1, left) * (1 - right) + point(top + 1, left + 1) * right;
    return above * (1 - down) + below * down;
  }

  #moved({ clientX, clientY }) {
    const place = this.#canvas.getBoundingClientRect();
    const here = [((clientX - place.left) / place.width) * SIDE, ((clientY - place.top) / place.height) * SIDE];
    this.#line(this.#last ?? here, here);
    this.#last = here;
    this.paint();
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    const pen = this.#pen;
    if (move) {
      pen.x = Math.min(SIDE - 1, Math.max(0, pen.x + move[0]));
      pen.y = Math.min(SIDE - 1, Math.max(0, pen.y + move[1]));
    } else if (event.key === " ") {
      pen.down = !pen.down;
    } else if (event.key === "Delete") {
      event.preventDefault();
      this.clear();
      return;
    } else {
      return;
    }
    event.preventDefault();
    const here = [pen.x + 0.5, pen.y + 0.5];
    if (pen.down) this.#line(here, here);
    this.paint();
    this.#tell(`Pen ${pen.down ? "down" : "up"}, column ${pen.x + 1}, row ${pen.y + 1}.`);
  }

  #line([fromX, fromY], [toX, toY]) {
    const steps = Math.max(1, Math.ceil(Math.hypot(toX - fromX, toY - fromY) * 2));
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [fromX + ((toX - fromX) * step) / steps, fromY + ((toY - fromY) * step) / steps];
      for (let at = 0; at < this.points.length; at++) {
        const far = Math.hypot((at % SIDE) + 0.5 - x, Math.floor(at / SIDE) + 0.5 - y);
        this.points[at] = Math.max(this.points[at], Math.min(1, Math.max(0, RADIUS + 0.5 - far)));
      }
    }
  }
}

/** Points from 0 to 1, white on black. */
export function paint(canvas, points) {
  const context = canvas.getContext("2d");
  const size = canvas.width / SIDE;
  points.forEach((point, at) => {
    const grey = Math.round(point * 255);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect((at % SIDE) * size, Math.floor(at / SIDE) * size, size, size);
  });
}
