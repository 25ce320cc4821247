"""Names of persons in case notes and consultations, by rules: 患者王建国，男 — 联系人：李四 — 挂刘春生主任的号.

A name is a surname with one or two characters that given names use, in a place that calls for one: after a word that
announces it, beside sex and age, beside another personal datum, before a title. 张某 and 李女士 name nobody.
"""

import re
from collections.abc import Iterator

_HAN = "[\u4e00-\u9fff]"


def _any(words: str) -> str:
    """`甲 乙` → a pattern for either, the longer first."""
    return f"(?:{'|'.join(sorted(words.split(), key=len, reverse=True))})"


_SURNAME = _any(
    " ".join(
        "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖萧田董潘袁蔡蒋"
        "余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付傅方邹熊白孟秦邱侯江尹薛闫"
        "阎段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤康易乔赖文施洪辛柯庄温牛葛邢安齐"
        "樊殷聂庞颜倪伍岳鲁申翁祝俞耿关兰左柳焦季詹欧鲍尚卓费纪舒凌梅童毕单裴霍涂成苗谷盛"
        "曲骆路甘艾蓝冉闵宁管查屈牟项祁蒲师阮蒙柴卞饶佘褚娄喻简丛辜戚宗景敖"
        "桑郁隋匡边原楼郎储晏华尤胥房包苟邬巫桂宫米阳瞿商滕仇车晋封花池席佟巩"
    )
    + " 欧阳 司马 上官 诸葛 东方 皇甫 尉迟 公孙 慕容 令狐 夏侯 司徒 端木 长孙 宇文 南宫 独孤 呼延 轩辕"
)
# no given name has these characters of disease and grammar
_NEVER = (
    "病症炎痛疼肿癌瘤血压疸障癜疹疮痔疡痒痹疯呕吐泻便尿咳喘晕眩药囊疗诊腹胸腰肠肝肾肺脾膀胱脏器细胞菌毒酸感"
    "染伤膜腺脂糖的了某岁们吗呢吧么什"
)
# few have these; where a name is less expected they count against it
_SELDOM = (
    "斑石麻热烧冷虚弱片胶治查检术背脚腿头手脑胃官过敏骨节是在不没怎啊着被把给对和与及或但就也都还很太最这那哪"
    "你我他她个次年时候里后左右性间案度般经曾因于以能要想去做说问该科院房床号室女父母妈老者属称无非且则等到至已"
    "刚现只又块皮粉带部侧位型期状况情形程序剂量食饮睡眠眼鼻耳口舌牙喉咽颈肩臂膝踝指趾乳宫卵巢孕胎产液汗痰脓泡"
    "疣癣痣"
)
# what else begins like a name in medical text
_NO_NAME = _any(
    "张力 高烧 高热 高危 高龄 高原 高三 高二 高一 高中 高考 康复 安全 安静 安排 安胎 安康 安宫 安眠 安定 全身 单纯 "
    "单独 单侧 单位 万一 万分 许多 平时 白天 白芍 白术 白蛋 白及 白果 白醋 白带 马上 马来 马齿 温水 温和 关节 关于 "
    "关心 关注 项目 向来 应该 应当 任何 周围 季节 文化 石膏 石斛 石淋 石某 花粉 花费 解决 何时 何种 何地 何人 何首 "
    "何以 成年 成人 成功 成都 童年 查体 查明 甘油 甘肃 金属 金银 申请 方面 方便 方式 华人 华法 华佗 牛奶 牛黄 牛皮 "
    "黄连 黄芪 黄体 黄精 龙胆 熊胆 辛苦 辛辣 严格 严重 易怒 游离 柴胡 苏醒 苏打 江苏 江西 尚可 尚好 尚未 原来 原发 "
    "边缘 管理 包括 包扎 车祸 车前 封闭 段落 路上 商量 盛行 蓝光 费用 简单 武汉 宁夏 宁心 云南 明确 景象 幸好 贾第 "
    "庞大 雷同 雷公 谷丙 谷草 毛囊 曲张 曲霉 党参 柏子 康泰 家属 于是 房颤 常见 常于 常规 通常"
)
_NOT_INSIDE = _any(
    "根据 隔离 评估 叮嘱 插管 探索 阿姨 奶奶 爷爷 大爷 大妈 大夫 医生 先生 女士 小姐 老师 主任 护士 教授 同学 配合 "
    "建议 咨询 联系 告知 随访 可能 可以 不能 会有 发现 发生 发作 多次 多发 多处 多年 多见 有时 有些 有关 出现 先天 "
    "先后"
)
_NOT = f"(?!{_NO_NAME}|.?{_NOT_INSIDE})"
_GIVEN = f"(?:(?![{_NEVER}{_SELDOM}]){_HAN})"
_NAME = f"(?P<name>{_NOT}{_SURNAME}{_GIVEN}{{1,2}})"
_LONG = f"(?P<name>{_NOT}{_SURNAME}{_GIVEN}{{2}})"
_SURE = f"(?P<name>{_NOT}{_SURNAME}(?:(?![{_NEVER}]){_HAN}){{1,2}})"
_STOP = r"\s*[，,、。；;：:（(）)！!？?/|\n]|\s*$|\s+\S"
_END = (
    f"(?={_STOP}|男|女|之|的|因|于|诉|住|患|"
    + _any(
        "性别 年龄 今年 现年 自述 主诉 主因 入院 出院 电话 手机 同志 家属 身份证 微信 病历 来诊 来院 来电 复诊 就诊 "
        "术后"
    )
    + r"|\d{1,3}\s?岁)"
)
_KIN = _any(
    "妈妈 爸爸 父亲 母亲 爱人 老公 老婆 丈夫 妻子 儿子 女儿 爷爷 奶奶 外公 外婆 姥姥 姥爷 哥哥 弟弟 姐姐 妹妹 岳父 "
    "岳母 婆婆 公公 孙子 孙女 舅舅 叔叔 同事 朋友 邻居 伯父 侄子 侄女 外甥 女友 男友 同学 室友 老伴 之女 之子 之妻 之夫"
)
_LABEL = _any(
    "联系人 家属 家长 监护人 代理人 陪护 陪护人 陪同 签名 签字 医师 医生 大夫 护士 记录者 记录人 供史者 陈述者 "
    "收件人 寄件人 收货人 代诉人 亲属 配偶 检查者 操作者 术者 主刀 助手 麻醉师 检验者 审核者 报告者 填表人 申请人 "
    "投保人 被保险人 经办人 户主 患者 病人 患儿 产妇 病员 受检者 受检人 就诊人 咨询人 咨询者 提问者 投稿人 "
    "受检者本人 患者信息"
)
_PATIENT = _any(
    "患者 病人 患儿 产妇 孕妇 病员 伤者 死者 受检者 先证者 逝者 本人 我叫 我是 他叫 她叫 名叫 名为 叫做 自称 联系人 "
    "就诊人 申请人 投保人 子叫 儿叫 孩叫 宝叫 人叫 女叫 母叫 妈叫 爸叫"
)
_TITLE = _any("医师 医生 大夫 主任 教授 护士长 护士 先生 女士 小姐 同志 老师")
_SENIOR = _any("副主任医师 主任医师 副主任 主治医师 住院医师 主治医生")
_GAP = r"[\s，,、（(/|：:]*"
_DATUM = r"(?:身份证|手机|电话|微信|QQ|1[3-9]\d{9}|1[3-9]\d[- ]|[A-Za-z0-9][\w.+-]*@)"
_AGE = r"\d{1,3}\s?(?:[岁月天周]|[Yy](?![a-z]))"
_PAIRS = (
    # what the rule needs at least (one quick search spares most texts the slow one), the rule
    # 姓名：阿依古丽·买买提, 姓  名：夏  玉  荷, 姓名 张三, 姓名：Zhang San
    (
        "名",
        rf"(?:姓\s*名|名字)(?:（[^）]*）|\([^)]*\))?\s?[:：=是为叫]?\s*"
        rf"(?P<name>{_HAN}{{1,6}}[·•.]{_HAN}{{1,8}}|{_SURNAME}(?:\s{{0,3}}{_HAN}){{1,2}}(?={_STOP}|性别|年龄|男|女)"
        rf"|{_SURNAME}{_GIVEN}{{1,2}}|[A-Z][a-z]+(?: [A-Z][a-z]+)+)",
    ),
    ("名", rf"姓\s*名\s?[:：]\s*(?P<name>{_GIVEN}{{2,4}}{_END})"),
    (
        rf"{_LABEL}[^，。]{{0,9}}[:：（(]",
        rf"{_LABEL}(?:姓名)?(?:（[^）]*）|\([^)]*\))?\s*[:：（(]\s*{_SURE}{_END}",
    ),
    (_PATIENT, rf"{_PATIENT}\s?{_NAME}{_END}"),
    (_SENIOR, rf"(?:{_SENIOR}|教授|院长|专家){_NAME}(?={_STOP})"),
    (_KIN, rf"{_KIN}(?:是|叫|名叫)?{_NAME}{_END}"),
    (_KIN, rf"{_KIN}{_LONG}(?=上|读|昨|前天|最近|从小|得了|确诊|被|做)"),
    # 王建国，男，56岁 and 梁玉成 M 66Y
    (
        rf"[男女MF].*?{_AGE}",
        rf"(?<!{_HAN}){_SURE}{_GAP}(?:性别[:：\s]*)?(?:[男女]性?|[MF](?![A-Za-z])){_GAP}(?:年龄[:：\s]*)?{_AGE}",
    ),
    (rf"{_AGE}{_GAP}[男女]", rf"(?<!{_HAN}){_SURE}{_GAP}{_AGE}{_GAP}[男女]"),
    # beside another datum: 刘春生 13700000000
    (_DATUM, rf"{_LONG}收?{_GAP}(?:[男女]{_GAP})?{_DATUM}"),
    (_DATUM, rf"(?<!{_HAN}){_SURE}收?{_GAP}(?:[男女]{_GAP})?{_DATUM}"),
    (_TITLE, rf"(?:(?<!{_HAN})|(?<=[挂找是由请问给让向的和跟叫])){_LONG}(?={_TITLE})"),
    ("患者", rf"(?<!{_HAN}){_LONG}(?=患者)"),
    (_SENIOR, rf"{_LONG}(?={_SENIOR})"),
)
_RULES = tuple((re.compile(hint), re.compile(rule)) for hint, rule in _PAIRS)


def names(text: str) -> Iterator[tuple[int, int]]:
    """Where names stand, as (start, end); places may repeat and overlap."""
    for hint, rule in _RULES:
        if hint.search(text):
            for match in rule.finditer(text):
                yield match.span("name")
