// The exact marginal velocity of a mixture of Gaussians, and the path that it carries a point along.

// E[e - x | z_t = z] for x ~ sum_k N(m_k, s^2) / K: the components' own, weighted by their posterior given z.
export function velocity([a, b], t, { means, std }) {
  const variance = (1 - t) ** 2 * std ** 2 + t ** 2;
  const away = means.map(([m, n]) => [a - (1 - t) * m, b - (1 - t) * n]);
  const logits = away.map(([p, q]) => -(p * p + q * q) / (2 * variance));
  const top = Math.max(...logits);
  const weights = logits.map((l) => Math.exp(l - top));
  const total = weights.reduce((sum, w) => sum + w, 0);
  const slope = (t - (1 - t) * std ** 2) / variance;
  const mean = [0, 0];
  means.forEach((m, k) => {
    for (const i of [0, 1]) mean[i] += (weights[k] / total) * (slope * away[k][i] - m[i]);
  });
  return mean;
}

// From noise at t = 1 to data at t = 0: classical Runge-Kutta.
export function path(start, mixture, steps = 100) {
  const h = -1 / steps;
  const along = ([a, b], [c, d], size) => [a + size * c, b + size * d];
  const points = [start];
  for (let k = 0; k < steps; k++) {
    const [z, t] = [points[k], 1 + k * h];
    const k1 = velocity(z, t, mixture);
    const k2 = velocity(along(z, k1, h / 2), t + h / 2, mixture);
    const k3 = velocity(along(z, k2, h / 2), t + h / 2, mixture);
    const k4 = velocity(along(z, k3, h), t + h, mixture);
    points.push([0, 1].map((i) => z[i] + (h / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i])));
  }
  return points;
}
