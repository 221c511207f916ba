"""Every term of the losses, by name and already weighted: the loss is the sum of its terms.

Pictures are float N x C x H x W in [0, 1]. Logits go into losses that take logits. All are
computed in float32, whatever precision the networks ran in.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.color import to_ab, to_grey
from model.networks.discriminator import PatchVerdict, Verdict
from model.networks.generator import Outputs

Terms = dict[str, Tensor]


def total(terms: Terms) -> Tensor:
    """Return the sum of a loss's terms."""
    return torch.stack(list(terms.values())).sum()


def chroma_terms(outputs: Outputs, color: Tensor, *, weight: float, contrast: float = 0.0) -> Terms:
    """Return the distance of the output's chroma in CIELAB, which L1 of RGB sees little of.

    It is what the chroma error measures, but over the whole picture.

    Args:
        outputs: of the generator.
        color: the true pictures.
        weight: of the term; at 0 there is none.
        contrast: how much more a pixel counts whose colour is not that of its surroundings, such
            as an eye's; at 0 all count alike.
    """
    if weight == 0:
        return {}
    true = to_ab(color)
    difference = to_ab(outputs.picture.float()) - true
    distance = (difference.square().sum(1, keepdim=True) + 1e-6).sqrt()
    if contrast:
        distance = distance * (1 + contrast * stand_out(true))
    return {"chroma": weight * distance.mean()}


def stand_out(chroma: Tensor) -> Tensor:
    """Return how far each colour differs from the mean around it, N x 1 x H x W in [0, 1].

    The mean is over a window with a quarter of the picture's sides. A distance |a| + |b| of 20 in
    CIELAB, or more, is 1.

    Args:
        chroma: of ``to_ab``, N x 2 x H x W.
    """
    rows, columns = (side // 8 for side in chroma.shape[-2:])  # to each side of a pixel
    # The mean of means costs little, however large the window.
    within = F.avg_pool2d(chroma, (2 * rows + 1, 1), 1, (rows, 0), count_include_pad=False)
    around = F.avg_pool2d(within, (1, 2 * columns + 1), 1, (0, columns), count_include_pad=False)
    return ((chroma - around).abs().sum(1, keepdim=True) / 0.2).clamp(max=1)


def l1_terms(outputs: Outputs, color: Tensor, *, weight: float, alpha: float, beta: float) -> Terms:
    """Return lambda L_G (the paper's equation 1): L1 distances of the output and the guides.

    Lambda is ``weight``. Guide 1 is the grey one, weighted by alpha, guide 2 the coloured one,
    weighted by beta; the article's formula has their targets the wrong way round, its text and the
    figure do not.
    """
    terms = {"l1": weight * F.l1_loss(outputs.picture.float(), color)}
    if outputs.guide_grey is not None:
        grey = F.l1_loss(outputs.guide_grey.float(), to_grey(color))
        terms["l1_guide_grey"] = weight * alpha * grey
    if outputs.guide_color is not None:
        colored = F.l1_loss(outputs.guide_color.float(), color)
        terms["l1_guide_color"] = weight * beta * colored
    return terms


def discriminator_terms(real: Verdict, generated: Verdict, style: Tensor) -> Terms:
    """Return what the discriminator minimises: -(L_S + L_C), or the paper's variant.

    L_S is the log-likelihood of the right source, L_C that of the right style on real and on
    generated pictures: Gaussian with deviation 1 in standardised numbers, averaged over them, so
    that half the squared error is left.

    The paper's variant (``Verdict.style`` is None) has the style vector as the target of its
    logits on real pictures, and 0 on generated ones. A target of such a loss is a probability,
    and standardised numbers are not; their sigmoid is.

    Args:
        real: on the true pictures.
        generated: on the generator's, detached from it.
        style: standardised style vectors of the references, N x style size.
    """
    if real.style is None or generated.style is None:
        return {
            "d_real": _cross_entropy(real.source, style.sigmoid()),
            "d_generated": _cross_entropy(generated.source, 0.0),
        }
    return {
        "d_source_real": _cross_entropy(real.source, 1.0),
        "d_source_generated": _cross_entropy(generated.source, 0.0),
        "d_style_real": _gaussian(real.style, style),
        "d_style_generated": _gaussian(generated.style, style),
    }


def adversarial_terms(generated: Verdict, style: Tensor) -> Terms:
    """Return what the generator minimises through the discriminator: -(L_C - L_S).

    In place of the log-likelihood of "generated", lowered, that of "real" is raised: the same
    aim, and a gradient that does not vanish while the discriminator wins (Goodfellow et al. 2014,
    section 3).

    Args:
        generated: the verdict on the generator's pictures.
        style: standardised style vectors of the references, N x style size.
    """
    if generated.style is None:
        return {"g_paper": _cross_entropy(generated.source, style.sigmoid())}
    return {
        "g_source": _cross_entropy(generated.source, 1.0),
        "g_style": _gaussian(generated.style, style),
    }


def patch_discriminator_terms(real: PatchVerdict, generated: PatchVerdict) -> Terms:
    """Return the hinge loss of the patch discriminator (Lim and Ye 2017)."""
    return {
        "d_patch_real": F.relu(1 - real.source.float()).mean(),
        "d_patch_generated": F.relu(1 + generated.source.float()).mean(),
    }


def patch_terms(
    generated: PatchVerdict, real: PatchVerdict, *, weight: float, feature_weight: float
) -> Terms:
    """Return what the generator minimises through the patch discriminator.

    Beside the hinge loss, its pictures should look to the discriminator's layers as the true ones
    do (feature matching, pix2pixHD, Wang et al. 2018, equation 4).

    Args:
        generated: the verdict on the generator's pictures.
        real: on the true ones; nothing flows back through it.
        weight: of the hinge loss.
        feature_weight: of the mean L1 distance of the layers' features.
    """
    distances = [
        F.l1_loss(a.float(), b.detach().float())
        for a, b in zip(generated.features, real.features, strict=True)
    ]
    return {
        "g_patch": -weight * generated.source.float().mean(),
        "g_features": feature_weight * torch.stack(distances).mean(),
    }


def _cross_entropy(logits: Tensor, target: Tensor | float) -> Tensor:
    logits = logits.float()
    if not isinstance(target, Tensor):
        target = torch.full_like(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


def _gaussian(predicted: Tensor, style: Tensor) -> Tensor:
    return 0.5 * F.mse_loss(predicted.float(), style)
