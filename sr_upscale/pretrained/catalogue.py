"""Well-known open weights that others made, by name.

Each row says what they are, under which licence, where they lie, and which bytes exactly they are. Addresses, sizes
and hashes are facts of the Open Model Database (github.com/OpenModelDB/open-model-database, commit 782aac08). Every
licence here permits any use, some of them with attribution. None is for non-commercial use alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from sr_upscale.storage.remote import RemoteFile


@dataclass(frozen=True, kw_only=True)
class RemoteWeights:
    """A row of the table.

    Attributes:
        name: What users type after ``-n``. Case does not matter, and `_` counts as `-`.
        architecture: What kind of network.
        scale: Its factor; 1 cleans without enlarging.
        license: SPDX identifier.
        purpose: What it is for, in a few words.
        file: Where it comes from.
    """

    name: str
    architecture: str
    scale: int
    license: str
    purpose: str
    file: RemoteFile

    @property
    def filename(self) -> str:
        """Returns the file's name in the cache."""
        return f"{self.name}{'.safetensors' if self.file.name.endswith('.safetensors') else '.pth'}"


def _row(
    name: str, architecture: str, scale: int, license_: str, purpose: str, size: int, sha256: str, url: str
) -> RemoteWeights:
    file = RemoteFile(url=url, size=size, sha256=sha256)
    return RemoteWeights(
        name=name, architecture=architecture, scale=scale, license=license_, purpose=purpose, file=file
    )


# fmt: off
CATALOGUE = (
    _row("realesrgan-x4plus", "ESRGAN", 4, "BSD-3-Clause", "general, restores photographs (Real-ESRGAN)", 67_040_989,
         "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth"),
    _row("realesrgan-x2plus", "ESRGAN", 2, "BSD-3-Clause", "general, restores photographs (Real-ESRGAN)", 67_061_725,
         "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.1/RealESRGAN_x2plus.pth"),
    _row("realesrgan-x4plus-anime-6b", "ESRGAN", 4, "BSD-3-Clause", "anime and drawings (Real-ESRGAN)", 17_938_799,
         "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth"),
    _row("realesr-general-x4v3", "Compact", 4, "BSD-3-Clause", "small and fast, general (Real-ESRGAN)", 4_885_111,
         "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.5.0/realesr-general-x4v3.pth"),
    _row("realesr-general-wdn-x4v3", "Compact", 4, "BSD-3-Clause", "the same, keeps noise (Real-ESRGAN)", 4_885_111,
         "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.5.0/realesr-general-wdn-x4v3.pth"),
    _row("realesr-animevideov3", "Compact", 4, "BSD-3-Clause", "small and fast, anime video (Real-ESRGAN)", 2_504_012,
         "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.5.0/realesr-animevideov3.pth"),
    _row("realesrganv2-animevideo-xsx2", "Compact", 2, "BSD-3-Clause", "small and fast, anime video", 2_419_014,
         "27985aa2198711ecd72f9bb274ec7b164e018fc9ce2933daaa7c7ab36a2bd3fe",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.3.0/RealESRGANv2-animevideo-xsx2.pth"),
    _row("realesrganv2-animevideo-xsx4", "Compact", 4, "BSD-3-Clause", "small and fast, anime video", 2_502_086,
         "5e04b111c16d5b40deb8f8062d09fdff72fa80281fb9607be23b62650c08daff",
         "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.3.0/RealESRGANv2-animevideo-xsx4.pth"),
    _row("4x-bsrgan", "ESRGAN", 4, "Apache-2.0", "photographs with unknown faults", 67_046_751,
         "5d505a0766160921e0388d76e1ddf08cb114303990f9080432bf2b1c988b1c54",
         "https://github.com/cszn/KAIR/releases/download/v1.0/BSRGAN.pth"),
    _row("2x-bsrgan", "ESRGAN", 2, "Apache-2.0", "photographs with unknown faults", 66_894_171,
         "614f68bcafcf123a1ea51cc75ae5741640a8b1d49dd75757ad3ad531f772c736",
         "https://github.com/cszn/KAIR/releases/download/v1.0/BSRGANx2.pth"),
    _row("swinir-m-x4-gan", "SwinIR", 4, "Apache-2.0", "photographs with unknown faults (SwinIR)", 67_129_861,
         "b9afb61e65e04eb7f8aba5095d070bbe9af28df76acd0c9405aeb33b814bcfc6",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth"),
    _row("swinir-l-x4-gan", "SwinIR", 4, "Apache-2.0", "the same, larger network (SwinIR)", 142_473_939,
         "99adfa91350a84c99e946c1eb3d8fce34bc28f57d807b09dc8fe40a316328c0a",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN.pth"),
    _row("swinir-m-x2-gan", "SwinIR", 2, "Apache-2.0", "photographs with unknown faults (SwinIR)", 66_974_517,
         "f397408977a3e07eb06afb7238d453a12ef35ebab7328a54241f307860dbe342",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x2_GAN.pth"),
    _row("swinir-s-x4", "SwinIR", 4, "Apache-2.0", "faithful, small (SwinIR)", 17_225_941,
         "09fad24e32ae62722e1a055efde9921328f4137981bab0a42a4a3a806306c58e",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4.pth"),
    _row("swinir-s-x3", "SwinIR", 3, "Apache-2.0", "faithful, small (SwinIR)", 17_180_437,
         "53af0cf0b15876752c1c2646a71444f739523b3d562e126d200521a817ab5d2c",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x3.pth"),
    _row("swinir-s-x2", "SwinIR", 2, "Apache-2.0", "faithful, small (SwinIR)", 17_147_989,
         "193b229909ca89cd8b55de9c9e7fce146ae759d59dfcd78d8feb9dd1d6fa0fd7",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth"),
    _row("swinir-m-x4", "SwinIR", 4, "Apache-2.0", "faithful (SwinIR)", 67_869_037,
         "4e78e33f22c1aa8a773db0cf4a7381bae97c2362c717f155439ebc690cbd9215",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth"),
    _row("swinir-m-x2", "SwinIR", 2, "Apache-2.0", "faithful (SwinIR)", 67_277_475,
         "2032ebf8f401dd3ce2fae5f3852117cb72101ec6ed8358faa64c2a3fa09ed4ac",
         "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pth"),
    _row("4x-nomos8ksc", "ESRGAN", 4, "CC-BY-4.0", "photographs, JPEG", 67_010_245,
         "07a7ccd6443d012d528999cd77e40c7d265aaf1f656c499b37936e49603a0b1d",
         "https://github.com/Phhofm/models/raw/main/4xNomos8kSC/4xNomos8kSC.pth"),
    _row("4x-lsdir", "ESRGAN", 4, "CC-BY-4.0", "clean photographs", 67_020_037,
         "2a743089e6395091b0073c15b4392c3c658ee32841ba770c15c27d92426e5901",
         "https://github.com/Phhofm/models/raw/main/4xLSDIR/4xLSDIR.pth"),
    _row("4x-lsdirplus", "ESRGAN", 4, "CC-BY-4.0", "photographs, JPEG and other faults", 67_010_245,
         "b549ddb71199fb8c54a0d33084bfe8ffd74882b383d85668066ca2ba57d49427",
         "https://github.com/Phhofm/models/raw/main/4xLSDIRplus/4xLSDIRplus.pth"),
    _row("4x-nomos2-otf-esrgan", "ESRGAN", 4, "CC-BY-4.0", "photographs, JPEG and other faults", 33_467_822,
         "12db878907ed3a52ee97de552dfc0ce7ffd38559ca9760a7803cb2d06a737055",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_otf_esrgan/4xNomos2_otf_esrgan.safetensors"),
    _row("4x-nomoswebphoto-esrgan", "ESRGAN", 4, "CC-BY-4.0", "photographs from the web", 33_467_822,
         "2f49c3065db8aaeb64adb08e8879001fe2f1460df5655499707efedad8a3d556",
         "https://github.com/Phhofm/models/releases/download/4xNomosWebPhoto_esrgan/4xNomosWebPhoto_esrgan.safetensors"),
    _row("4x-nomoswebphoto-realplksr", "RealPLKSR", 4, "CC-BY-4.0", "photographs from the web", 29_683_482,
         "a9db66c9b674c6a5025b6ef3bee71a57c33b8605d8a2de0980470f89002efbbe",
         "https://github.com/Phhofm/models/releases/download/4xNomosWebPhoto_RealPLKSR/4xNomosWebPhoto_RealPLKSR.pth"),
    _row("4x-nomos2-realplksr-dysample", "RealPLKSR", 4, "CC-BY-4.0", "photographs, JPEG and other faults", 29_715_988,
         "96c8476ed2c42107628d10562b32ae89e7be3c2f7a53d29504823e9bafe8121d",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_realplksr_dysample/4xNomos2_realplksr_dysample.pth"),
    _row("4x-nomoswebphoto-atd", "ATD", 4, "CC-BY-4.0", "photographs from the web, slow", 81_689_540,
         "ca0e7a3ecbb042dad1695d4dd3b73cf355af6db822984b61ac363e42fac7dff1",
         "https://github.com/Phhofm/models/releases/download/4xNomosWebPhoto_atd/4xNomosWebPhoto_atd.safetensors"),
    _row("4x-nomos2-hq-mosr", "MoSR", 4, "CC-BY-4.0", "clean photographs", 17_213_494,
         "c60dbfc7e6f7d27e03517d1bec3f3cbd16e8cd4288eefd1358952f73f8497ddc",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_hq_mosr/4xNomos2_hq_mosr.pth"),
    _row("4x-nomos2-hq-atd", "ATD", 4, "CC-BY-4.0", "clean photographs, slow", 81_689_540,
         "0fc5d114b19d1fe3c444e27e87a742f3584fb9bef412339f0c71474e93df39a6",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_hq_atd/4xNomos2_hq_atd.safetensors"),
    _row("4x-nomos2-hq-dat2", "DAT", 4, "CC-BY-4.0", "clean photographs, slow", 140_196_334,
         "1f2be2b4786b5031776aed90e1818564f5576ab1e44da9355c7f3788ea25bdea",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_hq_dat2/4xNomos2_hq_dat2.pth"),
    _row("4x-nomos2-hq-drct-l", "DRCT", 4, "CC-BY-4.0", "clean photographs, very slow", 242_543_780,
         "1a10632101bb2aca6151301dd811921f1c438ff55159fd579fb576c143477797",
         "https://github.com/Phhofm/models/releases/download/4xNomos2_hq_drct-l/4xNomos2_hq_drct-l.safetensors"),
    _row("4x-realwebphoto-v4-dat2", "DAT", 4, "CC-BY-4.0", "photographs from the web, slow", 139_792_588,
         "819047acf43073f63ea7289ed94d6991ba8446a3bdf38e274fadfcbaa2b7381d",
         "https://github.com/Phhofm/models/releases/download/4xRealWebPhoto_v4_dat2/4xRealWebPhoto_v4_dat2.safetensors"),
    _row("4x-nomos8kschat-s", "HAT", 4, "CC-BY-4.0", "photographs and anime, JPEG, slow", 81_096_929,
         "e1400e16a10bf4dbbe003651bf76f9f9c4e083f0e5c93e1c3effe2fa91b41168",
         "https://github.com/Phhofm/models/raw/main/4xNomos8kSCHAT-S/4xNomos8kSCHAT-S.pth"),
    _row("4x-lexicahat", "HAT", 4, "CC-BY-4.0", "pictures made by AI, slow", 85_149_569,
         "f3441f602f221ae111253b72ccb561e9f7a1a3dc84ab27923edea0a9581ea1dd",
         "https://github.com/Phhofm/models/raw/main/4xLexicaHAT/4xLexicaHAT.pth"),
    _row("4x-purephoto-span", "SPAN", 4, "CC-BY-SA-4.0", "photographs, fast", 9_016_490,
         "c689eec59771ed3eaffc10eea933c44fdb9131f83251c51c5bab4cae7c4d3bf2",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/4xPurePhoto-span.pth"),
    _row("4x-purephoto-realplskr", "RealPLKSR", 4, "CC-BY-SA-4.0", "photographs, JPEG", 29_663_426,
         "5913af168a6a1d38d216c91eb60f475d27eeebbd57ff8ed8943fdc7a84d1b250",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/4xPurePhoto-RealPLSKR.pth"),
    _row("4x-hfa2k", "ESRGAN", 4, "CC-BY-4.0", "anime, JPEG", 67_020_037,
         "35dfd9f6e9d2d264f0e79c6a054798a5e71b1c752bd8b668786c01ebd62fe2b0",
         "https://github.com/Phhofm/models/raw/main/4xHFA2k/4xHFA2k.pth"),
    _row("4x-hfa2k-ludvae-realplksr-dysample", "RealPLKSR", 4, "CC-BY-4.0", "anime, compression", 29_715_988,
         "c6e44af18fd3159787b0dbf81d432a6c1ba12c736fc1184b107ed091e49e327c",
         "https://github.com/Phhofm/models/releases/download/4xHFA2k_ludvae_realplksr_dysample/4xHFA2k_ludvae_realplksr_dysample.pth"),
    _row("4x-hfa2kludvaeswinir-light", "SwinIR", 4, "CC-BY-4.0", "anime, video frames", 17_225_509,
         "6563dd659ef2bf15cd594de243d4eee6cb41e66c43ab3df58c5be8fd2e3b5735",
         "https://github.com/Phhofm/models/raw/main/4xHFA2kLUDVAESwinIR_light/4xHFA2kLUDVAESwinIR_light.pth"),
    _row("2x-hfa2kavccompact", "Compact", 2, "CC-BY-4.0", "anime, video frames, fast", 4_838_301,
         "ceaf8d6b5db4bf1ddbc9bc757eb08e67b3409472d9373c5342ea3711ed28365e",
         "https://github.com/Phhofm/models/raw/main/2xHFA2kAVCCompact/2xHFA2kAVCCompact.pth"),
    _row("2x-hfa2kavcomnisr", "OmniSR", 2, "CC-BY-4.0", "anime, video frames", 6_551_545,
         "8cf209b73e3b8bd16e6e0267cff0ca01db01e755041b1da94ca61c359e7a6772",
         "https://github.com/Phhofm/models/raw/main/2xHFA2kAVCOmniSR/2xHFA2kAVCOmniSR.pth"),
    _row("2x-modernspanimationv1", "SPAN", 2, "MIT", "anime, fast", 15_830_922,
         "bc6ca08ab1eeb9884a5c43c025eda97a5aa9ccfaa567734f426aedf55cf78327",
         "https://github.com/TNTwise/Models/releases/download/2x_ModernSpanimationV1/2x_ModernSpanimationV1.pth"),
    _row("4x-drawimation-compact", "Compact", 4, "CC-BY-SA-4.0", "drawings, fast", 2_502_676,
         "e8458cc2aa62ee057417d4d18e0acfd5e8792456b796e111e848575f2f74e5f4",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/4xDrawimation-compact.pth"),
    _row("2x-mlp-starsample-v1-0", "Compact", 2, "CC0-1.0", "cartoons and general, fast", 1_205_456,
         "a83685aa15674a955ed2eec9cdffe2e1a591967f581d6c356a63f1cf4ae07a49",
         "https://github.com/Derpiesaurus/models/releases/download/v1.0/2x.StarSample.V1.0.safetensors"),
    _row("4x-mssim-span-pretrain", "SPAN", 4, "CC-BY-4.0", "clean pictures, fast, soft", 9_016_540,
         "234ac9facfdce987dab59ef6cd8129dd88903a16b6d34eeddd639b81f6695b18",
         "https://github.com/Phhofm/models/releases/download/4xSPAN_pretrains/4xmssim_span_pretrain.pth"),
    _row("4x-swift-srgan", "Swift-SRGAN", 4, "CC0-1.0", "clean pictures, very small", 922_571,
         "f741441dccb163c394afe095f76a5ca4a85732e699032732dc29320a900a609e",
         "https://github.com/Koushik0901/Swift-SRGAN/releases/download/v0.1/swift_srgan_4x.pth.tar"),
    _row("2x-swift-srgan", "Swift-SRGAN", 2, "CC0-1.0", "clean pictures, very small", 2_410_125,
         "b57a94a2be1e84eded4059aabce31e768a0c1e43887a14d457a586f3b1fcd877",
         "https://github.com/Koushik0901/Swift-SRGAN/releases/download/v0.1/swift_srgan_2x.pth.tar"),
    _row("4x-pbrify-upscalerspanv4", "SPAN", 4, "CC0-1.0", "game textures, fast", 9_016_813,
         "d1f1fa1af7a5ab23fcf143e75aac4951e6c52d56bf77d9ccd4d004a4831d0461",
         "https://github.com/Kim2091/PBRify_Remix/raw/main/Extras/Old_Models/4x-PBRify_UpscalerSPANV4.pth"),
    _row("4x-texturedat2-otf", "DAT", 4, "CC-BY-4.0", "game textures, slow", 139_792_588,
         "5851f91a4c95d803c919dd279a9353e32b212495cf54c5fbc868eed23b9f068b",
         "https://github.com/Phhofm/models/releases/download/4xTextureDAT2_otf/4xTextureDAT2_otf.safetensors"),
    _row("2x-text2hd-v-1", "RealPLKSR", 2, "CC-BY-SA-4.0", "text", 29_580_290,
         "1aeb4f5816fa2fd302a2c8aef49c3252cc14a5e22c4d9359f5c266a823ceb269",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/2x_Text2HD_v.1-RealPLKSR.pth"),
    _row("2x-vhs2hd", "RealPLKSR", 2, "CC-BY-SA-4.0", "video from VHS tapes", 29_580_290,
         "a702c79ec1d0421b46e91b1848b384a064b88ecffd14cffc998ded716a9e2d8a",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/2xVHS2HD-RealPLKSR.pth"),
    _row("1x-dejpg-realplksr-otf", "RealPLKSR", 1, "CC-BY-4.0", "removes JPEG from photographs", 29_486_580,
         "bfc0b9a1163bf20eb18479e1f4faa0ece1b4d5ce59759be8b843d6ef32d1890f",
         "https://github.com/Phhofm/models/releases/download/1xDeJPG_realplksr_otf/1xDeJPG_realplksr_otf.safetensors"),
    _row("1x-denoise-realplksr-otf", "RealPLKSR", 1, "CC-BY-4.0", "removes noise from photographs", 29_486_580,
         "0a3e22bdcb70dd790fce66f45df8d07e774e269b17c92a2835162b150d4a365c",
         "https://github.com/Phhofm/models/releases/download/1xDeNoise_realplksr_otf/1xDeNoise_realplksr_otf.safetensors"),
    _row("1x-deh264-realplksr", "RealPLKSR", 1, "CC-BY-4.0", "removes H.264 from video frames", 29_486_580,
         "91f054af6308e37b81c261ecf775a58be5fa1d37a816709db5d0fea6fceb24b8",
         "https://github.com/Phhofm/models/releases/download/1xDeH264_realplksr/1xDeH264_realplksr.safetensors"),
    _row("1x-book-compact", "Compact", 1, "CC-BY-SA-4.0", "cleans scanned pages", 2_386_212,
         "fbccfd710b4a2abf9e20b58b2714a2292d4f26571ed481af20d0c519fde10885",
         "https://github.com/starinspace/StarinspaceUpscale/releases/download/Models/1xBook-Compact.safetensors"),
    _row("1x-spangelion", "SPAN", 1, "CC-BY-SA-4.0", "cleans anime", 8_938_652,
         "c11d354c76899e6ef49151d479ec49abba39cbf93d2d88cbabdd54464489313c",
         "https://github.com/terrainer/AI-Upscaling-Models/raw/main/1xSPANGELION/1xSPANGELION.pth"),
)
# fmt: on
